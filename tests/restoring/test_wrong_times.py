"""A deadline or a timeout that is none: refused before anything is started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libxlsr.errors import TimedOut, UsageError
from libxlsr.events import Ao, Context
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.timeouts import Timeouts
from libxlsr.testing.fake_target import FakeTarget
from libxlsr.testing.stepping import run_until_idle
from libxlsr.tools.convert.operation import convert_ao
from libxlsr.tools.extract.operation import extract_ao
from libxlsr.tools.extract.request import Request

NO_TIMES: list[Any] = [float("nan"), float("inf"), float("-inf"), 1e12, 10**400, "3", True, b"", []]


@pytest.fixture
def fd() -> Iterator[int]:
    """A pipe into which nothing comes."""
    read_end, write_end = os.pipe()
    yield read_end
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize("deadline", NO_TIMES, ids=repr)
def test_a_wrong_deadline_starts_nothing(
    ctx: Context, fd: int, tmp_path: Path, deadline: Any
) -> None:
    with pytest.raises(UsageError, match="deadline"):
        Ao(ctx, deadline=deadline)
    with pytest.raises(UsageError, match="deadline"):
        restore_ao(ctx, fd, RestoreOptions(deadline=deadline), target=FakeTarget(ctx))
    with pytest.raises(UsageError, match="deadline"):
        extract_ao(ctx, fd, tmp_path / "output", Request("raw"), deadline=deadline)
    with pytest.raises(UsageError, match="deadline"):
        convert_ao(ctx, fd, tmp_path / "output", compact=True, deadline=deadline)
    assert ctx.registered() == []
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("deadline", [0, -0.5])
def test_a_deadline_that_has_passed(ctx: Context, fd: int, deadline: float) -> None:
    ao = restore_ao(ctx, fd, RestoreOptions(deadline=deadline), target=FakeTarget(ctx))
    run_until_idle(ctx)
    with pytest.raises(TimedOut):
        ao.result()


@pytest.mark.parametrize("limit", [*NO_TIMES, 0, -1], ids=repr)
@pytest.mark.parametrize("wait", ["silence", "helper", "device_model", "hotplug"])
def test_a_wrong_timeout(wait: str, limit: Any) -> None:
    with pytest.raises(UsageError, match=f"the timeout {wait}: "):
        Timeouts(**{wait: limit})
    assert getattr(Timeouts(**{wait: None}), wait) is None
