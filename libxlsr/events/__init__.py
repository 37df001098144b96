"""The event layer, modelled on libxl's: context, egc, ao, fd, time and child events, datacopier."""

from __future__ import annotations

from libxlsr.events.ao import Ao, AoStateError
from libxlsr.events.child import Child, ExitStatus
from libxlsr.events.context import Context, Prepared
from libxlsr.events.datacopier import CopyResult, Datacopier, Outcome
from libxlsr.events.egc import ImmediateEvent
from libxlsr.events.fd_events import READ, WRITE, FdEvent
from libxlsr.events.loop import run
from libxlsr.events.time_events import TimeEvent
from libxlsr.events.timers import Timer

__all__ = [
    "READ",
    "WRITE",
    "Ao",
    "AoStateError",
    "Child",
    "Context",
    "CopyResult",
    "Datacopier",
    "ExitStatus",
    "FdEvent",
    "ImmediateEvent",
    "Outcome",
    "Prepared",
    "TimeEvent",
    "Timer",
    "run",
]
