"""The program in an IndexTarget's helper, in a process that knows the new record types."""

from __future__ import annotations

from typing import Any

from libxlsr.helper.child import Channel
from libxlsr.restoring.image import index_worker

from . import new_record_types


def run(channel: Channel) -> dict[str, Any]:
    """As the real worker does."""
    new_record_types.add()
    return index_worker.run(channel)
