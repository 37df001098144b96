"""A short soak each time, the long one on request."""

from __future__ import annotations

from pathlib import Path

import pytest

from libxlsr.restoring.image.target import ImageTarget
from libxlsr.testing.in_process import InProcessImageTarget

from .restores import growth, soak

LAPS = 4


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (InProcessImageTarget, 200),
        (ImageTarget, 40),
        pytest.param(InProcessImageTarget, 10_000, marks=pytest.mark.slow),
        pytest.param(ImageTarget, 10_000, marks=pytest.mark.slow),
    ],
)
def test_nothing_grows(tmp_path: Path, kind: type[ImageTarget], number: int) -> None:
    laps = list(soak(tmp_path, number, LAPS, kind))
    outcomes = laps[-1].outcomes
    assert outcomes["damaged"] == number // 5
    # An abort that comes when the guest is already there comes too late.
    assert outcomes["done"] + outcomes["aborted"] == number - number // 5
    assert outcomes["aborted"] > number // 10
    assert growth(laps) == []
