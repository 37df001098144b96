"""A guest's state but its memory, as one object for JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from libxlsr.tools.inspect.state_pieces import Piece


def guest_state(pieces: Iterable[Piece]) -> dict[str, Any]:
    """The state by kind: ``tsc``, ``hvm_params``, ``hvm_context``, ``vcpus``, ``cpuid``, …"""
    state: dict[str, Any] = {}
    for piece in pieces:
        inner = state
        for key in piece.path[:-1]:
            inner = inner.setdefault(key, {})
        inner[piece.path[-1]] = piece.values
    return state


def flattened(value: Any, path: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], Any]]:
    """``(path, leaf)`` of each value in nested objects; lists and empty objects are leaves.

    A path has the keys one by one: any of them may hold a dot.
    """
    if isinstance(value, dict) and (value or not path):
        for key, inner in value.items():
            yield from flattened(inner, (*path, str(key)))
    else:
        yield path, value
