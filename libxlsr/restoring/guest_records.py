"""Which of libxl's records a guest's type asks for and forbids."""

from __future__ import annotations

from libxlsr.errors import StreamError
from libxlsr.formats import xl
from libxlsr.formats.records import LIBXL
from libxlsr.restoring.target import LibxcOutcome
from libxlsr.stream.record import Record


def domain_type(config: xl.Config | None, libxc: LibxcOutcome | None) -> str | None:
    """What is known by now: "pv", "pvh", "hvm"; None for HVM or PVH without a configuration."""
    if config is not None:
        return config.domain_type
    return "pv" if libxc is not None and libxc.guest_kind == "pv" else None


def check_guest_has(guest: str | None, record: Record) -> None:
    """Raises StreamError for a record that such a guest does not have."""
    guests = LIBXL[record.type].guests
    if guest is not None and guest not in guests:
        raise StreamError(
            f"a {guest} guest has no {record.type.name}",
            offset=record.offset,
            expected=f"one for these guests only: {', '.join(sorted(guests))}",
        )


def check_complete(guest: str | None, *, emulator_context: bool, offset: int | None) -> None:
    """At the end of the stream, ``offset``: raises StreamError for what is missing."""
    if guest == "hvm" and not emulator_context:
        raise StreamError(
            "the stream of an HVM guest ends without an EMULATOR_CONTEXT",
            offset=offset,
            expected="the device model's state",
            remedy="the image is damaged, or its sender was: save the guest again",
        )
