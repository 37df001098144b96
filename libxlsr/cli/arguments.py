"""Values that more than one command takes on its command line."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from libxlsr.errors import UsageError
from libxlsr.source.path_or_fd import PathOrFd

if TYPE_CHECKING:  # it takes long to import, and verify needs none
    from pathlib import Path

_LAST_ADDRESS = (1 << 64) - 1


def image_source(image: str) -> PathOrFd:
    """The path ``image``, or standard input for ``-``. Raises UsageError where there is none."""
    if image != "-":
        return image
    if sys.stdin is None:
        raise UsageError("standard input is closed", remedy="name the image's file")
    if sys.stdin.isatty():
        raise UsageError(
            "standard input is a terminal", remedy="name the image's file, or pipe it in"
        )
    return sys.stdin.fileno()


def output_file(text: str) -> Path:
    """A file to make: there when it is whole or not at all, which standard output can't be."""
    if text == "-":
        raise argparse.ArgumentTypeError(
            "standard output is not written to; name a file (./- for one of that name)"
        )
    from pathlib import Path

    return Path(text)


def seconds(text: str) -> float:
    """A time that one can wait."""
    wrong = argparse.ArgumentTypeError(f"{text} is no number of seconds")
    try:
        value = float(text)
    except ValueError:
        raise wrong from None
    if not 0 < value < 1e9:
        raise wrong
    return value


def number(text: str) -> int:
    """An unsigned number of at most 64 bits, decimal or hexadecimal."""
    wrong = argparse.ArgumentTypeError(f"{text} is no number of 64 bits")
    try:
        value = int(text, 0)
    except ValueError:
        raise wrong from None
    if not 0 <= value <= _LAST_ADDRESS:
        raise wrong
    return value


def address_range(text: str) -> tuple[int, int]:
    """``FIRST-LAST`` or ``FIRST+COUNT`` as the first and the last."""
    first, plus, count = text.partition("+")
    if plus:
        start = number(first)
        end = start + number(count) - 1
    else:
        first, _minus, last = text.partition("-")
        start, end = number(first), number(last or first)
    if not start <= end <= _LAST_ADDRESS:
        raise argparse.ArgumentTypeError(f"{text} is no range")
    return start, end
