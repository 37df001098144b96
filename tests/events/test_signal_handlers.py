"""Signals whose handlers raise, at every moment of a loop."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import libxlsr
from libxlsr.events import Context, run
from libxlsr.testing.builder import StreamBuilder
from libxlsr.tools.convert.operation import convert
from libxlsr.tools.extract.operation import extract
from libxlsr.tools.extract.request import Request
from tests.forks import in_a_fork


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_callback_is_not_broken_off(ctx: Context) -> None:
    done: list[str] = []

    def callback() -> None:
        signal.raise_signal(signal.SIGINT)
        done.append("all of it")

    ctx.call_soon(callback)
    timer = ctx.call_later(1000.0, pytest.fail, "it waited")
    with pytest.raises(KeyboardInterrupt):
        run(ctx, lambda: False)
    assert done == ["all of it"]
    timer.deregister()


def test_a_wait_is(ctx: Context) -> None:
    timer = ctx.call_later(1000.0, pytest.fail, "it waited")
    main = threading.main_thread().ident
    assert main is not None
    sender = threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGINT))
    sender.start()
    with pytest.raises(KeyboardInterrupt):
        run(ctx, lambda: False)
    sender.join()
    timer.deregister()


def test_one_that_came_last_is_not_lost(ctx: Context) -> None:
    ctx.call_soon(signal.raise_signal, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(ctx, lambda: ctx.registered() == [])


def test_handlers_are_as_before_but_for_those_that_a_callback_sets(ctx: Context) -> None:
    def handler(*_: object) -> None:
        pass

    before = signal.getsignal(signal.SIGUSR1)
    ctx.call_soon(signal.signal, signal.SIGUSR1, handler)
    run(ctx, lambda: signal.getsignal(signal.SIGUSR1) is handler)
    assert signal.getsignal(signal.SIGUSR1) is handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGUSR1, before)


def test_a_child_that_a_callback_forks_holds_nothing(ctx: Context) -> None:
    def interrupted() -> None:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    forked: list[None] = []

    def callback() -> None:
        in_a_fork(interrupted)
        forked.append(None)

    ctx.call_soon(callback)
    run(ctx, lambda: bool(forked))


def test_in_another_thread_there_is_nothing_to_hold() -> None:
    called: list[str] = []

    def loop() -> None:
        ctx = Context()
        ctx.call_soon(called.append, "callback")
        run(ctx, lambda: bool(called))

    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()
    assert called == ["callback"]


@pytest.mark.parametrize(
    "call",
    [
        lambda image, output: libxlsr.restore(image, target="image", output=output),
        lambda image, output: extract(image, output, Request("raw")),
        lambda image, output: convert(image, output, compact=True),
    ],
    ids=["restore", "extract", "convert"],
)
def test_a_blocking_call_undoes_what_it_was_making(
    call: Callable[[Path, Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "image"
    image.write_bytes(StreamBuilder("pv", pages=2).build())
    mkdtemp = tempfile.mkdtemp

    def then_a_signal(**where: Any) -> Any:
        made = mkdtemp(**where)
        signal.raise_signal(signal.SIGINT)
        return made

    monkeypatch.setattr(tempfile, "mkdtemp", then_a_signal)
    with pytest.raises(KeyboardInterrupt):
        call(image, tmp_path / "output")
    assert os.listdir(tmp_path) == ["image"]
