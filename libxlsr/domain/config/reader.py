"""Reads members of a configuration, each checked for its type and range."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from libxlsr.errors import StreamError
from libxlsr.formats import xl
from libxlsr.formats.text import printable

ITEMS_MAX = 1024
"""Of one list. libxl has no limit; a domain has 1023 event channels for all of its devices."""


def without_nulls(value: Any) -> Any:
    """A JSON value without the members that are null, at any depth.

    Such a member counts as missing, as in libxl, which looks for a member of the type that it wants
    and takes its default where it finds none (libxl__json_map_get, libxl_json.c). A null in a list
    stays: an item is not a member that could be missing, and is refused like any other wrong item.
    """
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


class Reader:
    """The members below one place of a configuration (``base``; the root without one).

    Each method raises StreamError for a member of another type or range. A path names a member from
    the reader's place on.
    """

    def __init__(self, config: xl.Config, *base: str) -> None:
        self._config = config
        self._base = base

    def below(self, *path: str) -> Reader:
        """A reader of the members of an object, which need not be there."""
        return Reader(self._config, *self._base, *path)

    def objects(self, *path: str) -> list[Reader]:
        """A reader for each object of a list; none where there is no list."""
        name = ".".join((*self._base, *path))
        return [
            Reader(xl.Config(b"", {name: item}, self._config.offset), name)
            for item in self._list(path, dict, "objects")
        ]

    def has(self, *path: str) -> bool:
        """Whether there is anything."""
        return self.value(*path) is not None

    def value(self, *path: str) -> Any:
        """What is there, unchecked; None where nothing is."""
        return self._config.value(*self._base, *path)

    def optional_flag(self, *path: str) -> bool | None:
        """A libxl_defbool; None where libxl chooses."""
        return self._config.defbool(*self._base, *path)

    def flag(self, *path: str, default: bool) -> bool:
        """A libxl_defbool."""
        value = self.optional_flag(*path)
        return default if value is None else value

    def optional_number(self, *path: str, minimum: int = 0, maximum: int = 2**64 - 1) -> int | None:
        """A whole number, None where there is none."""
        return self._config.integer(*self._base, *path, minimum=minimum, maximum=maximum)

    def number(self, *path: str, default: int, minimum: int = 0, maximum: int = 2**64 - 1) -> int:
        """A whole number."""
        value = self.optional_number(*path, minimum=minimum, maximum=maximum)
        return default if value is None else value

    def string(self, *path: str) -> str | None:
        """A string of any characters, None where there is none."""
        return self._config.string(*self._base, *path)

    def text(self, *path: str) -> str | None:
        """A printable string, None where there is none or it is empty."""
        return self._printable(self.string(*path), path) or None

    def choice(self, names: Collection[str], *path: str) -> str:
        """One of the names, the first where the configuration has none."""
        value = self.string(*path)
        if value is None:
            return next(iter(names))
        if value not in names:
            raise self.wrong(path, f"is '{printable(value, 40)}'", ", ".join(names))
        return value

    def texts(self, *path: str) -> tuple[str, ...]:
        """A list of printable strings."""
        return tuple(self._printable(item, path) or "" for item in self._list(path, str, "strings"))

    def numbers(self, *path: str, maximum: int) -> list[int]:
        """A list of whole numbers from 0 on."""
        items = self._list(path, int, "numbers")
        if not all(_is_number(item, maximum) for item in items):
            raise self.wrong(path, "is not a list of numbers", f"0 to {maximum}")
        return items

    def bitmap(self, *path: str, limit: int = 1 << 16) -> frozenset[int]:
        """A libxl_bitmap: the numbers below ``limit`` that are in it."""
        value = self.value(*path)
        return frozenset() if value is None else self._members(value, path, limit)

    def bitmaps(self, *path: str, limit: int) -> tuple[frozenset[int], ...]:
        """At most ``limit`` bitmaps."""
        value = self.value(*path)
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > limit:
            raise self.wrong(path, "is not a list of bitmaps", f"at most {limit}")
        return tuple(self._members(item, path, 1 << 16) for item in value)

    def wrong(self, path: tuple[str, ...], what: str, expected: str | None) -> StreamError:
        """The error for a member: "b_info.tsc_mode is …"."""
        return StreamError(
            f"{'.'.join((*self._base, *path))} {what}",
            offset=self._config.offset,
            record="xl domain configuration",
            expected=expected,
        )

    def _members(self, value: object, path: tuple[str, ...], limit: int) -> frozenset[int]:
        if not isinstance(value, list) or not all(_is_number(item, limit - 1) for item in value):
            raise self.wrong(path, "is not a bitmap", f"a list of numbers from 0 to {limit - 1}")
        return frozenset(value)

    def _list(self, path: tuple[str, ...], kind: type, kinds: str) -> list[Any]:
        value = self.value(*path)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
            raise self.wrong(path, f"is not a list of {kinds}", None)
        if len(value) > ITEMS_MAX:
            raise self.wrong(path, f"has {len(value)} items", f"at most {ITEMS_MAX}")
        return value

    def _printable(self, untrusted: str | None, path: tuple[str, ...]) -> str | None:
        if untrusted is not None and not untrusted.isprintable():
            raise self.wrong(path, f"is '{printable(untrusted, 60)}'", "printable characters")
        return untrusted


def _is_number(value: object, maximum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= maximum
