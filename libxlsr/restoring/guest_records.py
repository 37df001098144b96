"""Which of libxl's records a guest's type asks for and forbids."""

from __future__ import annotations

from libxlsr.errors import StreamError
from libxlsr.formats import xl
from libxlsr.restoring.target import LibxcOutcome
from libxlsr.stream.record import Record


def domain_type(config: xl.Config | None, libxc: LibxcOutcome | None) -> str | None:
    """What is known by now: "pv", "pvh", "hvm"; None for HVM or PVH without a configuration."""
    if config is not None:
        return config.domain_type
    return "pv" if libxc is not None and libxc.guest_kind == "pv" else None


def check_emulator_record(guest: str | None, record: Record) -> None:
    """Raises StreamError for a guest that has no device model."""
    if guest in ("pv", "pvh"):
        raise StreamError(
            f"a {guest} guest has no device model",
            offset=record.offset,
            expected="such a record for HVM guests only",
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
