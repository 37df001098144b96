"""The loops that the tests of this directory run on, and the images that they restore."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import pytest

from libxlsr.testing.builder import StreamBuilder

PATIENCE = 60.0
"""Seconds after which a test that waits is given up."""

Run = Callable[[Coroutine[Any, Any, Any]], Any]


if importlib.util.find_spec("uvloop"):
    # The first loop of a process leaves a pipe open for good, which no test shall be blamed for.
    import uvloop

    uvloop.run(asyncio.sleep(0))


def _new_loop(kind: str) -> asyncio.AbstractEventLoop:
    if kind == "uvloop":
        loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
        return loop
    return asyncio.new_event_loop()


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop in debug mode, which complains of what is not awaited and of calls that come late."""
    new = _new_loop(request.param)
    new.set_debug(True)
    new.slow_callback_duration = 10.0
    yield new
    if not new.is_closed():
        new.run_until_complete(new.shutdown_asyncgens())
        new.close()


@pytest.fixture
def run_async(loop: asyncio.AbstractEventLoop) -> Run:
    """Run one coroutine to its end, with patience."""

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return loop.run_until_complete(asyncio.wait_for(coroutine, PATIENCE))

    return run


IMAGE = StreamBuilder("hvm", pages=8).build()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A small HVM guest's image."""
    path = tmp_path / "guest.save"
    path.write_bytes(IMAGE)
    return path


@contextmanager
def pipe_holding(data: bytes) -> Iterator[tuple[int, int]]:
    """A pipe with ``data`` in it, which must fit; both its ends."""
    read_end, write_end = os.pipe()
    try:
        assert os.write(write_end, data) == len(data)
        yield read_end, write_end
    finally:
        os.close(read_end)
        os.close(write_end)
