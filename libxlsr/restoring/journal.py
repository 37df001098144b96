"""What a restore says of itself while it runs: progress, how long each phase took, log records.

Log records carry ``stream`` (the restore's name), ``domain`` (the guest's name, when it is known)
and ``offset`` (bytes of the input that were read) as attributes, for `logging`'s formatters.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from typing import Callable, Protocol

from libxlsr.events import Context
from libxlsr.restoring.progress import Phase, Progress

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL = 0.1
"""Seconds between two reports of one phase at the least. A new phase is reported at once."""


class Followed(Protocol):
    """The reading of an image, of which the journal tells."""

    @property
    def position(self) -> int:
        """How many bytes of the input were read by now."""

    @property
    def libxl_records(self) -> int:
        """How many records of libxl's were read."""


class Journal:
    """One restore's. Helpers tell of what the reading does not know (``count``)."""

    def __init__(
        self, ctx: Context, fd: int, name: str, on_progress: Callable[[Progress], object]
    ) -> None:
        self._ctx = ctx
        self._name = name
        self._on_progress = on_progress
        self._reading: Followed | None = None
        self._total = _size_left(fd)
        self._started = self._phase_started = ctx.now()
        self._next_report = self._started
        self._phase = Phase.OPENING
        self.domain: str | None = None
        self.counters = {"bytes": 0, "frames": 0, "records": 0, "source_bytes": 0}
        self.phases: dict[Phase, float] = {}

    @property
    def phase(self) -> Phase:
        """The present one."""
        return self._phase

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self._ctx.now() - self._started

    def follow(self, reading: Followed) -> None:
        """The image is being read from now on."""
        self._reading = reading

    def enter(self, phase: Phase) -> None:
        """Another phase begins."""
        now = self._ctx.now()
        spent = self._spent(self._phase, now)
        self.phases[self._phase] = spent
        if phase is not self._phase:
            self.log(logging.DEBUG, f"{self._phase.value} took {spent:.3f} s, now {phase.value}")
        self._phase = phase
        self._phase_started = now
        self._report(now)

    def count(self, counters: Mapping[str, int]) -> None:
        """Counters grew."""
        for name in self.counters:
            self.counters[name] = max(self.counters[name], counters.get(name, 0))
        now = self._ctx.now()
        if now >= self._next_report:
            self._report(now)

    def log(self, level: int, text: str) -> None:
        """A log record of this restore."""
        if logger.isEnabledFor(level):
            extra = {"stream": self._name, "domain": self.domain, "offset": self._position()}
            logger.log(level, "%s: %s", self._name, text, extra=extra)

    def _position(self) -> int:
        """Before the reading begins, a decompressor or a converter may have read something."""
        reading = self._reading
        return self.counters["source_bytes"] if reading is None else reading.position

    def _spent(self, phase: Phase, now: float) -> float:
        """Seconds in a phase, up to now where it is the present one."""
        since = now - self._phase_started if phase is self._phase else 0.0
        return self.phases.get(phase, 0.0) + since

    def _report(self, now: float) -> None:
        self._next_report = now + PROGRESS_INTERVAL
        self._on_progress(
            Progress(
                phase=self._phase,
                position=self._position(),
                total=self._total,
                frames=self.counters["frames"],
                records=self.counters["records"]
                + (0 if self._reading is None else self._reading.libxl_records),
                elapsed=now - self._started,
                queued=self._spent(Phase.QUEUED, now),
            )
        )


def _size_left(fd: int) -> int | None:
    """Bytes from here to the end of a regular file; None for anything else."""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        return max(0, status.st_size - os.lseek(fd, 0, os.SEEK_CUR))
    except OSError:  # whoever reads the file will say what is wrong with it
        return None
