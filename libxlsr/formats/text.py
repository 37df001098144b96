"""Text that came from a stream, made fit to be shown on a terminal."""

from __future__ import annotations

DISPLAY_MAX = 200


def printable(text: str, limit: int = DISPLAY_MAX) -> str:
    """``text`` with everything that isn't printable escaped, cut at ``limit`` characters.

    Control characters, line breaks, lone surrogates, and the invisible characters that turn
    a line round (U+202E and its kin) become ``\\x1b``-like escapes; a backslash is doubled, so
    that an escape can't be forged.
    """
    cut = text[:limit]
    shown = "".join(
        "\\\\" if char == "\\" else char if char.isprintable() else _escape(char) for char in cut
    )
    return shown + "..." if len(text) > limit else shown


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
