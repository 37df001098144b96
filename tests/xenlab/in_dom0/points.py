"""Places at which a restore is broken off: some in every run, the others in a slow one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


def spread(points: Iterable[T], always: set[T]) -> list[Any]:
    """The points as parameters; those that are not for every run are marked slow."""
    return [p if p in always else pytest.param(p, marks=pytest.mark.slow) for p in points]
