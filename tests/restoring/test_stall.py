"""A stream that stands still: what is a silent sender, what a stuck helper, and what neither."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from libxlsr.errors import Aborted, TimedOut
from libxlsr.events import Ao, Context
from libxlsr.helper.parent import TERMINATE_GRACE
from libxlsr.restoring.image.target import ImageTarget
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import RestoreResult
from libxlsr.restoring.target import Target
from libxlsr.restoring.timeouts import Timeouts
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.clock import FakeClock
from libxlsr.testing.fake_target import FakeTarget
from libxlsr.testing.leaks import children
from libxlsr.testing.stepping import run_until, run_until_idle

IMAGE = StreamBuilder("hvm", pages=4).build()
SILENCE = 10.0
HELPER = 30.0


class Sender:
    """A pipe to the restore, and its time."""

    def __init__(self, ctx: Context, clock: FakeClock) -> None:
        self.ctx = ctx
        self.clock = clock
        self.timeouts = Timeouts(silence=SILENCE)
        self.read_end, self.write_end = os.pipe()

    def restore(self, target: Target) -> Ao[RestoreResult]:
        return restore_ao(
            self.ctx, self.read_end, RestoreOptions(timeouts=self.timeouts), target=target
        )

    def send(self, data: bytes) -> None:
        assert os.write(self.write_end, data) == len(data)

    def pass_time(self, seconds: float) -> None:
        """Let everything happen that is due, bit by bit."""
        run_until_idle(self.ctx)
        for _ in range(int(seconds * 4)):
            self.clock.advance(0.25)
            run_until_idle(self.ctx)


@pytest.fixture
def sender(fake_ctx: Context, clock: FakeClock) -> Iterator[Sender]:
    made = Sender(fake_ctx, clock)
    yield made
    os.close(made.read_end)
    os.close(made.write_end)


@pytest.mark.parametrize("sent", [0, 5, 60, 300, len(IMAGE) - 20])
def test_silence_ends_the_restore(sender: Sender, sent: int) -> None:
    target = FakeTarget(sender.ctx)
    sender.send(IMAGE[:sent])
    ao = sender.restore(target)
    sender.pass_time(SILENCE - 1)
    assert ao.aborting is None
    sender.pass_time(1 + SILENCE / 4 + 1)
    with pytest.raises(TimedOut, match="sent nothing for 10 s"):
        ao.result()
    assert target.rolled_back


def test_a_slow_sender_is_not_silent(sender: Sender) -> None:
    target = FakeTarget(sender.ctx)
    ao = sender.restore(target)
    for number in range(40):
        sender.send(IMAGE[number : number + 1])
        sender.pass_time(SILENCE - 1)
    assert ao.aborting is None
    sender.send(IMAGE[40:])
    run_until(sender.ctx, lambda: ao.done)
    assert target.finished


@pytest.mark.parametrize("busy_with", ["prepare", "restore_libxc", "emulator_context"])
def test_a_busy_target_is_not_a_silent_sender(sender: Sender, busy_with: str) -> None:
    target = FakeTarget(sender.ctx, held={busy_with})
    sender.send(IMAGE)
    ao = sender.restore(target)
    run_until(sender.ctx, lambda: target.busy)
    sender.pass_time(20 * SILENCE)
    assert ao.aborting is None
    ao.abort()
    run_until(sender.ctx, lambda: ao.done)
    with pytest.raises(Aborted):
        ao.result()


def test_after_the_stream_the_sender_may_be_silent(sender: Sender) -> None:
    target = FakeTarget(sender.ctx, held={"finish"})
    sender.send(IMAGE)
    ao = sender.restore(target)
    run_until(sender.ctx, lambda: target.busy)
    sender.pass_time(20 * SILENCE)
    assert ao.aborting is None
    ao.abort()
    run_until(sender.ctx, lambda: ao.done)


def test_silence_while_the_helper_reads(sender: Sender, tmp_path: Path) -> None:
    sender.send(IMAGE[:-2000])
    ao = sender.restore(ImageTarget(sender.ctx, tmp_path / "guest"))
    run_until(sender.ctx, lambda: bool(list(tmp_path.iterdir())))
    for _ in range(100):
        if ao.aborting is None:
            sender.clock.advance(1.0)
            wait_for_the_helper(sender)
    run_until(sender.ctx, lambda: ao.done)  # in the time that its helper really takes to end
    with pytest.raises(TimedOut, match="sent nothing"):
        ao.result()
    assert list(tmp_path.iterdir()) == []


def wait_for_the_helper(sender: Sender) -> None:
    """Let the helper read what is there; only then does silence begin."""
    poll = select.poll()
    poll.register(sender.read_end, select.POLLIN)
    run_until(sender.ctx, lambda: not poll.poll(0))
    run_until_idle(sender.ctx)


@pytest.mark.parametrize("open_end", [True, False], ids=["more may come", "all was sent"])
@pytest.mark.parametrize("silence", [None, SILENCE])
def test_a_helper_that_does_nothing(sender: Sender, open_end: bool, silence: float | None) -> None:
    sender.timeouts = Timeouts(silence=silence, helper=HELPER)
    target = FakeTarget(sender.ctx, held={"restore_libxc"})
    sender.send(IMAGE)
    if not open_end:
        os.close(sender.write_end)
    ao = sender.restore(target)
    run_until(sender.ctx, lambda: target.busy)
    sender.pass_time(HELPER - 1)
    assert ao.aborting is None
    sender.pass_time(1 + HELPER / 4 + 1)
    with pytest.raises(TimedOut, match="helper has done nothing for 30 s"):
        ao.result()
    assert target.rolled_back
    if not open_end:
        sender.write_end = os.open(os.devnull, os.O_WRONLY)


def test_a_helper_that_comes_further_is_not_stuck(sender: Sender) -> None:
    sender.timeouts = Timeouts(helper=HELPER)
    target = FakeTarget(sender.ctx, held={"restore_libxc"})
    sender.send(IMAGE)
    ao = sender.restore(target)
    run_until(sender.ctx, lambda: target.busy)
    assert target.hooks is not None
    for number in range(10):
        sender.pass_time(HELPER - 1)
        target.hooks.progress({"frames": number + 1})
    assert ao.aborting is None
    ao.abort()
    run_until(sender.ctx, lambda: ao.done)


@pytest.mark.parametrize("busy_with", ["prepare", "emulator_context", "finish"])
def test_where_no_helper_runs_none_is_stuck(sender: Sender, busy_with: str) -> None:
    sender.timeouts = Timeouts(helper=HELPER)
    target = FakeTarget(sender.ctx, held={busy_with})
    sender.send(IMAGE + b"what is the caller's")
    ao = sender.restore(target)
    run_until(sender.ctx, lambda: target.busy)
    sender.pass_time(20 * HELPER)
    assert ao.aborting is None
    ao.abort()
    run_until(sender.ctx, lambda: ao.done)


def test_a_helper_that_was_stopped(sender: Sender, tmp_path: Path) -> None:
    """A stopped process heeds no SIGTERM: SIGKILL ends it."""
    sender.timeouts = Timeouts(helper=HELPER)
    image = tmp_path / "image"
    image.write_bytes(IMAGE)
    target = ImageTarget(sender.ctx, tmp_path / "guest")
    with open(image, "rb") as file:
        ao = restore_ao(
            sender.ctx, file.fileno(), RestoreOptions(timeouts=sender.timeouts), target=target
        )
        run_until(sender.ctx, lambda: bool(children()))
        (pid,) = children()
        os.kill(pid, signal.SIGSTOP)
        while ao.aborting is None:
            sender.pass_time(1)
        sender.pass_time(TERMINATE_GRACE)
        # No more than that: the kernel takes real time to end it, and must not seem to fail.
        run_until(sender.ctx, lambda: ao.done)
    with pytest.raises(TimedOut, match="helper has done nothing"):
        ao.result()
    assert list(tmp_path.iterdir()) == [image]


def test_the_target_is_told_of_its_timeouts(sender: Sender) -> None:
    sender.timeouts = Timeouts(hotplug=7.0)
    target = FakeTarget(sender.ctx)
    sender.send(IMAGE)
    ao = sender.restore(target)
    run_until(sender.ctx, lambda: ao.done)
    assert target.hooks is not None
    assert target.hooks.timeouts == Timeouts(device_model=60.0, hotplug=7.0)
