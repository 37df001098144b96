"""What every run of the lab tries, out of what only a slow run tries whole."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

KINDS = ("pv", "pvh")
"""Those of the fixture ``guest``."""


def spread(points: Iterable[T], always: set[T]) -> list[Any]:
    """The points as parameters; those that are not ``always`` tried are marked slow. A tuple is a
    point of several parameters."""
    points = list(points)
    assert always <= set(points)
    return [p if p in always else _slow(p) for p in points]


def every_run_with(kind: str) -> pytest.MarkDecorator:
    """The test takes a ``guest`` of this kind in every run, and one of the other in a slow one."""
    return pytest.mark.parametrize("guest", spread(KINDS, {kind}), indirect=True)


def each_image_with(
    name: str, values: Iterable[T], always: set[tuple[str, T]]
) -> pytest.MarkDecorator:
    """The test takes an ``image`` of each kind with each value of the parameter ``name``; in every
    run the pairs that are in ``always``."""
    pairs = spread(itertools.product(KINDS, values), always)
    return pytest.mark.parametrize(("image", name), pairs, indirect=["image"])


def _slow(point: object) -> Any:
    values = point if isinstance(point, tuple) else (point,)
    return pytest.param(*values, marks=pytest.mark.slow)
