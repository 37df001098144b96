"""Text of a stream's can't move the cursor, hide itself, or forge an escape."""

from __future__ import annotations

import pytest

from libxlsr.formats.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("guest-1", "guest-1"),
        ("größe", "größe"),
        ("a\nb\x1b[2J", r"a\nb\x1b[2J"),
        ("\u202etxt", r"\u202etxt"),
        ("\ud800", r"\ud800"),
        ("\\x1b", r"\\x1b"),
        ("x" * 300, "x" * 200 + "..."),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
