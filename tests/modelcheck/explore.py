"""Stateless search: every path of choices through a world, each run from the beginning.

A path ends when the world has no choices left. The search goes depth first: it repeats a path up to
its last choice that has an alternative left, and takes that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


class World(Protocol):
    """One run. It raises AssertionError as soon as an invariant is broken."""

    def choices(self) -> Sequence[str]:
        """What can happen now; nothing when the run is over. The same for the same past."""

    def do(self, choice: str) -> None:
        """Let it happen."""

    def end(self) -> None:
        """The run is over: check what must hold then, and release everything."""

    def discard(self) -> None:
        """Release everything, whatever state it is in."""


@dataclass
class Explored:
    """How much was explored."""

    paths: int = 0
    steps: int = 0
    depth: int = 0
    """Steps of the longest path."""

    def __add__(self, other: Explored) -> Explored:
        return Explored(
            self.paths + other.paths, self.steps + other.steps, max(self.depth, other.depth)
        )

    def __str__(self) -> str:
        return f"{self.paths:,} paths, {self.steps:,} steps, the longest path {self.depth} steps"


def explore(make: Callable[[], World]) -> Explored:
    """Run every path of the world that ``make`` makes. Raises AssertionError with the path that
    breaks an invariant."""
    explored = Explored()
    taken: list[tuple[int, int]] = []  # at each step: the choice, and how many there were
    while True:
        names = _run(make(), taken)
        explored.paths += 1
        explored.steps += len(names)
        explored.depth = max(explored.depth, len(names))
        while taken and taken[-1][0] + 1 == taken[-1][1]:
            taken.pop()
        if not taken:
            return explored
        choice, number = taken[-1]
        taken[-1] = (choice + 1, number)


def replay(world: World, path: Sequence[str]) -> None:
    """Run one path, named step by step."""
    try:
        for name in path:
            assert name in world.choices(), f"{name!r} is none of {world.choices()}"
            world.do(name)
    except BaseException:
        world.discard()
        raise
    world.end()


def _run(world: World, taken: list[tuple[int, int]]) -> list[str]:
    """Run the path that begins with ``taken``, which grows to the path's end."""
    names: list[str] = []
    try:
        while True:
            choices = world.choices()
            if not choices:
                break
            step = len(names)
            if step == len(taken):
                taken.append((0, len(choices)))
            index, number = taken[step]
            assert number == len(choices), "the world does not repeat itself"
            names.append(choices[index])
            world.do(choices[index])
        world.end()
    except BaseException as error:
        world.discard()
        raise AssertionError(f"{error!r} on the path {names}") from error
    return names
