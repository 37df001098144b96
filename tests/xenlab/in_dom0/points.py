"""What every run of the lab tries, out of what only a slow run tries whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


def spread(points: Iterable[T], always: set[T]) -> list[Any]:
    """The points as parameters; those that are not ``always`` tried are marked slow. A tuple is a
    point of several parameters."""
    points = list(points)
    assert always <= set(points)
    return [p if p in always else _slow(p) for p in points]


def every_run_with(kind: str) -> pytest.MarkDecorator:
    """The test takes a ``guest`` of this kind in every run, and one of the other in a slow one."""
    return pytest.mark.parametrize("guest", spread(("pv", "pvh"), {kind}), indirect=True)


def _slow(point: object) -> Any:
    values = point if isinstance(point, tuple) else (point,)
    return pytest.param(*values, marks=pytest.mark.slow)
