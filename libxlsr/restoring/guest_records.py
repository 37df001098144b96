"""Which of libxl's records a guest's type asks for and forbids."""

from __future__ import annotations

from libxlsr.formats import xl
from libxlsr.libxc import rules
from libxlsr.restoring.target import LibxcOutcome
from libxlsr.stream.record import Record


def domain_type(config: xl.Config | None, libxc: LibxcOutcome | None) -> str | None:
    """What is known by now: "pv", "pvh", "hvm"; None for HVM or PVH without a configuration."""
    if config is not None:
        return config.domain_type
    return "pv" if libxc is not None and libxc.guest_kind == "pv" else None


def check_guest_has(guest: str | None, record: Record) -> None:
    """Raises StreamError for a record that such a guest does not have."""
    rules.emulator_unexpected(guest, record.type, record.offset)


def check_complete(guest: str | None, *, emulator_context: bool, offset: int | None) -> None:
    """At the end of the stream, ``offset``: raises StreamError for what is missing."""
    rules.emulator_missing(guest, emulator_context=emulator_context, offset=offset)
