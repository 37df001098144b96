"""Every interleaving of arriving bytes, EOF, abort, deadline and the target's answers, explored.

What must hold on each path is asserted by `RestoreWorld`: one completion, transitions along the
table, the first error wins and no later one is forgotten, not a byte beyond END is read, the offset
is right, the fd's mode is as it came, and nothing stays registered or open.
"""

from __future__ import annotations

import pytest

from .explore import Explored, explore
from .restore_world import RestoreWorld, Scenario
from .scenarios import DEEP, SEARCHES, STREAMS, Search


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_every_interleaving(search: Search) -> None:
    explored = search.run()
    assert explored.paths > 20
    print(f"{search}: {explored}")


@pytest.mark.slow
@pytest.mark.parametrize("search", DEEP, ids=str)
def test_every_interleaving_deeper(search: Search) -> None:
    print(f"{search}: {search.run()}")


class _Letters:
    """A world of all the words of three letters."""

    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._word = ""

    def choices(self) -> list[str]:
        return ["a", "b"] if len(self._word) < 3 else []

    def do(self, choice: str) -> None:
        self._word += choice
        assert self._word != self._broken

    _broken = ""

    def end(self) -> None:
        self._words.append(self._word)

    def discard(self) -> None:
        self._words.append(f"discarded {self._word}")


def test_the_search_takes_each_path_once() -> None:
    words: list[str] = []
    assert explore(lambda: _Letters(words)) == Explored(paths=8, steps=24, depth=3)
    assert words == ["aaa", "aab", "aba", "abb", "baa", "bab", "bba", "bbb"]


def test_a_broken_invariant_is_reported_with_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Letters, "_broken", "ab")
    words: list[str] = []
    with pytest.raises(AssertionError, match=r"on the path \['a', 'b'\]"):
        explore(lambda: _Letters(words))
    assert words == ["aaa", "aab", "discarded ab"]


def test_a_reader_that_takes_a_byte_too_many_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The invariants can fail: a world whose trailer is shorter than it should be."""
    monkeypatch.setattr("libxlsr.formats.libxl.RECORD_HEADER_SIZE", 16)
    with pytest.raises(AssertionError, match="on the path"):
        explore(lambda: RestoreWorld(Scenario((STREAMS["plain"] + b"NEXTNEXT",))))
