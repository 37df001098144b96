"""Waiting for an operation, and what becomes of it when something interrupts that."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest

import libxlsr
from libxlsr.errors import TargetError
from libxlsr.events import Ao, Context, waiting
from libxlsr.events.waiting import wait
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.progress import Phase, Progress
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.fake_target import FakeTarget

DATA = StreamBuilder("hvm", pages=4).build()


class Raised(BaseException):
    """What a callback of these tests raises; ``number`` says which time it was."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class AlwaysRaises:
    """A callback that raises whenever it is called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *_arguments: object) -> None:
        self.calls += 1
        raise Raised(self.calls)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(DATA)
    return path


def test_progress_that_always_raises_is_told_no_more_and_all_is_undone(image: Path) -> None:
    callback = AlwaysRaises()
    with pytest.raises(Raised) as caught:
        libxlsr.restore(image, target="image", output=image.parent / "guest", on_progress=callback)
    assert (caught.value.number, callback.calls) == (1, 1)
    assert os.listdir(image.parent) == ["image"]


def test_the_target_rolls_back(ctx: Context, image: Path) -> None:
    target = FakeTarget(ctx)
    with open(image, "rb") as file:
        ao = restore_ao(ctx, file.fileno(), target=target, on_progress=AlwaysRaises())
        with pytest.raises(Raised):
            wait(ctx, lambda: ao)
    assert ao.done
    assert target.calls[-1] == "rollback"


class Undoing:
    """An operation that takes ``rounds`` rounds of the loop to stop, and raises in each."""

    def __init__(self, ctx: Context, rounds: int) -> None:
        self._ctx = ctx
        self._rounds = rounds
        self.ao: Ao[None] = Ao(ctx)
        self.ao.set_abort_handler(lambda reason: self._stop())
        ctx.call_soon(AlwaysRaises())

    def _stop(self) -> None:
        if not self._rounds:
            self.ao.fail(TargetError("can't remove it"))
            return
        self._rounds -= 1
        self._ctx.call_soon(self._stop)
        raise KeyboardInterrupt


def test_a_ctrl_c_while_it_is_undone_does_not_end_that(
    ctx: Context, caplog: pytest.LogCaptureFixture
) -> None:
    undoing = Undoing(ctx, 3)
    with pytest.raises(Raised):
        wait(ctx, lambda: undoing.ao)
    assert undoing.ao.done
    said = [record.getMessage() for record in caplog.records]
    assert said == ["while an operation was undone: KeyboardInterrupt()"] * 3 + [
        "while an operation was undone: can't remove it"
    ]


def test_undoing_that_raises_for_ever_has_an_end(
    ctx: Context, caplog: pytest.LogCaptureFixture
) -> None:
    undoing = Undoing(ctx, 2 * waiting.RAISED_MAX)
    with caplog.at_level(logging.ERROR), pytest.raises(Raised):
        wait(ctx, lambda: undoing.ao)
    assert [record.getMessage() for record in caplog.records] == [
        "an operation was not undone to its end"
    ]
    for _ in range(waiting.RAISED_MAX):
        with pytest.raises(KeyboardInterrupt):
            ctx.dispatch({})
    ctx.dispatch({})


def test_a_forked_child_that_unwinds_undoes_nothing_of_its_parents(image: Path) -> None:
    statuses: list[int] = []

    def on_progress(progress: Progress) -> None:
        if progress.phase is Phase.MEMORY and not statuses:
            pid = os.fork()
            if pid == 0:
                raise SystemExit
            statuses.append(os.waitpid(pid, 0)[1])

    here = os.getpid()
    guest = image.parent / "guest"
    try:
        libxlsr.restore(image, target="image", output=guest, on_progress=on_progress)
    finally:
        if os.getpid() != here:  # this is the child, after it has unwound
            os._exit(7 if isinstance(sys.exc_info()[1], SystemExit) else 1)
    assert [os.WEXITSTATUS(status) for status in statuses] == [7]
    assert (guest / "image.json").exists()


def test_what_was_done_already_is_said(image: Path, caplog: pytest.LogCaptureFixture) -> None:
    def on_progress(progress: Progress) -> None:
        if progress.phase is Phase.FINISHING:
            raise Raised(0)

    guest = image.parent / "guest"
    with pytest.raises(Raised):
        libxlsr.restore(image, target="image", output=guest, on_progress=on_progress)
    assert guest.is_dir()
    (record,) = caplog.records
    assert record.getMessage() == "interrupted too late: the operation was done already"
