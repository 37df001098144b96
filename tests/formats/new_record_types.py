"""Two record types that no Xen has, a row each: NEW_STATE of libxl's, NEW_FEATURES of libxc's."""

from __future__ import annotations

import enum
import struct
from collections.abc import MutableMapping
from typing import Any, NamedTuple, TypeVar

from libxlsr.errors import StreamError
from libxlsr.formats import libxc, libxl
from libxlsr.formats.framing import Buffer, unpack_exact
from libxlsr.formats.records import HVM, HVM_AND_PVH, LIBXC, LIBXL, LibxcRow, LibxlRow, Once
from libxlsr.tools.verify.findings import RULES, Rule, Severity

_BODY = struct.Struct("<I")
LARGEST = 64


class NewBody(NamedTuple):
    """The body of either: a number below 100."""

    number: int

    def encode(self) -> bytes:
        return _BODY.pack(self.number)

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> NewBody:
        """Raises StreamError for a wrong length and a number of 100 or more."""
        (number,) = unpack_exact(_BODY, data, offset, "a new record")
        if number >= 100:
            raise StreamError(f"the number is {number}", offset=offset, expected="less than 100")
        return cls(number)


E = TypeVar("E", bound=enum.IntEnum)


def _member(numbers: type[E], name: str, value: int) -> E:
    """What ``name = value`` among the members of an enumeration would make."""
    member = int.__new__(numbers, value)
    member._name_, member._value_ = name, value
    return member


NEW_STATE = _member(libxl.RecordType, "NEW_STATE", 6)
NEW_FEATURES = _member(libxc.RecordType, "NEW_FEATURES", 0x13)

STATE_ROW = LibxlRow(
    NEW_STATE,
    place=2,
    decode=NewBody.decode,  # type: ignore[arg-type]
    largest=LARGEST,
    guests=HVM,
    finding="new-state",
)
FEATURES_ROW = LibxcRow(
    NEW_FEATURES,
    place=5,
    decode=lambda data, offset, _width: NewBody.decode(data, offset),  # type: ignore[arg-type, return-value]
    largest=LARGEST,
    guests=HVM_AND_PVH,
    finding="new-features",
    since=3,
    once=Once.STATE,
    needs=(libxc.RecordType.PAGE_DATA,),
)


def additions() -> list[tuple[MutableMapping[Any, Any], object, object]]:
    """What the two types add, and to which mappings: a member, a row and a finding each."""
    meaning = Rule(Severity.ERROR, "Its body is wrong.")
    return [
        (libxl.RecordType._value2member_map_, int(NEW_STATE), NEW_STATE),
        (libxc.RecordType._value2member_map_, int(NEW_FEATURES), NEW_FEATURES),
        (LIBXL, int(NEW_STATE), STATE_ROW),
        (LIBXC, int(NEW_FEATURES), FEATURES_ROW),
        (RULES, "new-state", meaning),
        (RULES, "new-features", meaning),
    ]


def add() -> None:
    """Add them to this process for good."""
    for mapping, key, value in additions():
        mapping[key] = value
