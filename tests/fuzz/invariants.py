"""What the targets have in common: assertions on errors, and records taken from built streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from libxlsr.errors import LibxlsrError, StreamError

T = TypeVar("T")

OFFSET = 0x1000
"""Where the bytes are said to stand in their stream."""


def check_message(error: LibxlsrError) -> None:
    """An error's text is one line that any terminal can show."""
    text = str(error)
    assert text.isprintable(), repr(text)
    text.encode("utf-8")
    assert len(text) < 2000, "a message that long hides what it says"


def decoded(decode: Callable[[bytes, int], T], data: bytes) -> T | None:
    """What ``decode`` makes of ``data``; None where it raised a proper StreamError."""
    try:
        return decode(data, OFFSET)
    except StreamError as error:
        check_message(error)
        assert error.offset is not None
        assert OFFSET <= error.offset <= OFFSET + len(data), error
        return None
