"""Aborts, deadlines and errors: at every point, from everywhere, and completed exactly once."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import libxlsr
from libxlsr.errors import Aborted, LibxlsrError, StreamError, TargetError, TimedOut
from libxlsr.events import Ao, Context
from libxlsr.formats import libxl
from libxlsr.restoring.image.target import ImageTarget
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import Phase, Progress, RestoreResult
from libxlsr.stream.reader_machine import State
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.clock import FakeClock
from libxlsr.testing.fake_target import FakeTarget
from libxlsr.testing.in_process import InProcessImageTarget
from libxlsr.testing.stepping import run_until, run_until_idle, step

STREAM = StreamBuilder("hvm", pages=4, xenstore=[("physmap/a0000/size", "20000")])
DATA = STREAM.build()
CALLS = (
    "prepare",
    "restore_libxc",
    "emulator_xenstore_data",
    "emulator_context",
    "finish",
)


@contextmanager
def image_fd(data: bytes = DATA) -> Iterator[int]:
    fd = os.memfd_create("image")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


class Restore:
    """One restore into a fake target, and what its caller is told."""

    def __init__(self, ctx: Context, fd: int, target: FakeTarget, **options: Any) -> None:
        self.ctx = ctx
        self.target = target
        self.completions: list[Ao[RestoreResult]] = []
        self.ao = restore_ao(
            ctx, fd, RestoreOptions(**options), target=target, on_done=self.completions.append
        )

    def run(self) -> None:
        run_until_idle(self.ctx)
        assert self.completions == [self.ao]
        assert self.ctx.registered() == []

    @property
    def error(self) -> LibxlsrError:
        with pytest.raises(LibxlsrError) as caught:
            self.ao.result()
        return caught.value


def steps_of_a_restore() -> int:
    ctx = Context()
    with image_fd() as fd:
        restore = Restore(ctx, fd, FakeTarget(ctx))
        steps = run_until_idle(ctx)
        restore.ao.result()
    return steps


@pytest.mark.parametrize("steps", range(steps_of_a_restore() + 1))
def test_abort_at_every_step(ctx: Context, steps: int) -> None:
    with image_fd() as fd:
        target = FakeTarget(ctx)
        restore = Restore(ctx, fd, target)
        for _ in range(steps):
            assert step(ctx)
        reason = Aborted("enough")
        restore.ao.abort(reason)
        restore.ao.abort(Aborted("again"))
        restore.run()
    if target.finished:
        restore.ao.result()
        assert not target.rolled_back
    else:
        assert restore.error is reason
        assert target.calls.count("rollback") == 1
        assert target.calls[-1] == "rollback"
    restore.ao.abort()
    run_until_idle(ctx)
    assert len(restore.completions) == 1


@pytest.mark.parametrize("steps", range(0, steps_of_a_restore() + 1, 3))
def test_abort_of_an_offline_restore_at_many_steps(
    ctx: Context, tmp_path: Path, steps: int
) -> None:
    with image_fd() as fd:
        ao = restore_ao(ctx, fd, target=InProcessImageTarget(ctx, tmp_path / "guest"))
        for _ in range(steps):
            step(ctx)
        ao.abort()
        run_until_idle(ctx)
    try:
        ao.result()
    except Aborted:
        assert os.listdir(tmp_path) == []
    else:
        assert os.listdir(tmp_path) == ["guest"]
        assert (tmp_path / "guest" / "image.json").exists()


@pytest.mark.parametrize(
    "phase", [phase for phase in Phase if phase not in (Phase.QUEUED, Phase.UNDOING)]
)
def test_abort_from_the_progress_of_each_phase(ctx: Context, tmp_path: Path, phase: Phase) -> None:
    def on_progress(progress: Progress) -> None:
        if progress.phase is phase:
            ao.abort()

    with image_fd() as fd:
        ao = restore_ao(
            ctx,
            fd,
            RestoreOptions(to_eof=True),
            target=ImageTarget(ctx, tmp_path / "guest"),
            on_progress=on_progress,
        )
        if phase is Phase.OPENING:
            ao.abort()  # nobody is told of it: it is where a restore begins
        run_until(ctx, lambda: ao.done)
        run_until_idle(ctx)
    try:
        ao.result()
    except Aborted:
        assert os.listdir(tmp_path) == []
    else:
        assert phase in (Phase.FINISHING, Phase.WRITING)
        assert os.listdir(tmp_path) == ["guest"]


def test_abort_from_the_trace(ctx: Context) -> None:
    with image_fd() as fd:
        restores: list[Restore] = []
        options = {"trace": lambda *transition: restores[0].ao.abort()}
        restores.append(Restore(ctx, fd, FakeTarget(ctx), **options))
        restores[0].run()
    assert isinstance(restores[0].error, Aborted)


def test_abort_from_the_completion(ctx: Context) -> None:
    done: list[Ao[RestoreResult]] = []

    def on_done(ao: Ao[RestoreResult]) -> None:
        done.append(ao)
        ao.abort()

    with image_fd() as fd:
        ao = restore_ao(ctx, fd, target=FakeTarget(ctx), on_done=on_done)
        run_until_idle(ctx)
    ao.result()
    assert done == [ao]


@pytest.mark.parametrize("call", CALLS)
def test_abort_from_inside_each_call_of_the_target(ctx: Context, call: str) -> None:
    with image_fd() as fd:
        target = FakeTarget(ctx)
        restore = Restore(ctx, fd, target)
        target.on_call = lambda name: restore.ao.abort() if name == call else None
        restore.run()
    if call == "finish":
        restore.ao.result()  # it was there when the abort was heard
    else:
        assert isinstance(restore.error, Aborted)
        assert target.rolled_back


@pytest.mark.parametrize("call", CALLS)
def test_abort_of_a_target_that_dawdles(ctx: Context, call: str) -> None:
    with image_fd() as fd:
        target = FakeTarget(ctx, held=[call])
        restore = Restore(ctx, fd, target)
        run_until_idle(ctx)
        assert target.busy
        reason = Aborted("enough")
        restore.ao.abort(reason)
        restore.run()
    assert restore.error is reason
    assert target.calls[-2:] == ["abort", "rollback"]


@pytest.mark.parametrize("call", CALLS)
def test_a_deadline(fake_ctx: Context, clock: FakeClock, call: str) -> None:
    with image_fd() as fd:
        target = FakeTarget(fake_ctx, held=[call])
        restore = Restore(fake_ctx, fd, target, deadline=30)
        run_until_idle(fake_ctx)
        clock.advance(29.9)
        run_until_idle(fake_ctx)
        assert not restore.ao.done
        clock.advance(0.2)
        restore.run()
    assert isinstance(restore.error, TimedOut)
    assert restore.error.exit_code == 4
    assert "30 s" in str(restore.error)
    assert target.rolled_back


def test_a_deadline_while_the_sender_is_silent(fake_ctx: Context, clock: FakeClock) -> None:
    read_end, write_end = os.pipe()
    try:
        os.write(write_end, DATA[:100])
        restore = Restore(fake_ctx, read_end, FakeTarget(fake_ctx), deadline=30)
        run_until_idle(fake_ctx)
        clock.advance(31)
        restore.run()
    finally:
        os.close(read_end)
        os.close(write_end)
    assert isinstance(restore.error, TimedOut)


@pytest.mark.parametrize("call", CALLS)
def test_an_error_of_each_call_of_the_target(ctx: Context, call: str) -> None:
    cause = TargetError("no space")
    with image_fd() as fd:
        target = FakeTarget(ctx, errors={call: cause})
        restore = Restore(ctx, fd, target)
        restore.run()
    assert restore.error is cause
    assert cause.later == []
    assert target.calls[-1] == "rollback"
    assert target.calls.count("rollback") == 1


def test_a_rollback_that_fails_is_told_of_later(ctx: Context) -> None:
    cause, undo = TargetError("no space"), TargetError("can't remove it")
    with image_fd() as fd:
        target = FakeTarget(ctx, errors={"finish": cause, "rollback": undo})
        restore = Restore(ctx, fd, target)
        restore.run()
    assert restore.error is cause
    assert cause.later == [undo]


def test_a_staging_directory_that_somebody_took_away(ctx: Context, tmp_path: Path) -> None:
    def on_transition(trigger: str, source: State, dest: State) -> None:
        if dest is State.DONE:
            (staged,) = tmp_path.iterdir()
            staged.rename(tmp_path.parent / "taken")

    with image_fd() as fd:
        target = InProcessImageTarget(ctx, tmp_path / "guest")
        ao = restore_ao(ctx, fd, RestoreOptions(trace=on_transition), target=target)
        run_until_idle(ctx)
    with pytest.raises(TargetError) as caught:
        ao.result()
    assert caught.value.errno == errno.ENOENT
    assert os.listdir(tmp_path) == []


def test_an_abort_after_an_error_does_not_hide_it(ctx: Context) -> None:
    cause = StreamError("wrong", offset=0)
    with image_fd() as fd:
        target = FakeTarget(ctx, errors={"emulator_context": cause}, held=["rollback"])
        restore = Restore(ctx, fd, target)
        run_until_idle(ctx)
        assert target.busy
        restore.ao.abort(Aborted("impatient"))
        run_until_idle(ctx)
        target.abort(TargetError("undone"))
        restore.run()
    assert restore.error is cause
    assert [str(error) for error in cause.later] == ["impatient", "undone"]


def test_an_exception_of_a_callback_reaches_the_caller_and_leaves_a_whole_restore(
    ctx: Context, tmp_path: Path
) -> None:
    raised = 0

    def on_progress(progress: Progress) -> None:
        nonlocal raised
        if not raised:
            raised += 1
            raise KeyboardInterrupt

    with image_fd() as fd:
        ao = restore_ao(
            ctx, fd, target=InProcessImageTarget(ctx, tmp_path / "guest"), on_progress=on_progress
        )
        with pytest.raises(KeyboardInterrupt):
            run_until_idle(ctx)
        run_until_idle(ctx)
    ao.result()
    assert os.listdir(tmp_path) == ["guest"]


def test_an_exception_of_the_completion_reaches_the_caller_of_a_whole_restore(
    ctx: Context,
) -> None:
    def on_done(ao: Ao[RestoreResult]) -> None:
        raise ZeroDivisionError

    with image_fd() as fd:
        target = FakeTarget(ctx)
        ao = restore_ao(ctx, fd, target=target, on_done=on_done)
        with pytest.raises(ZeroDivisionError):
            run_until_idle(ctx)
    ao.result()
    assert target.finished


def test_a_trace_that_raises_spoils_no_restore(
    ctx: Context, caplog: pytest.LogCaptureFixture
) -> None:
    def trace(trigger: str, source: State, dest: State) -> None:
        raise ZeroDivisionError

    with image_fd() as fd:
        restore = Restore(ctx, fd, FakeTarget(ctx), trace=trace)
        restore.run()
    restore.ao.result()
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_ctrl_c_in_the_trace_leaves_a_restore_that_can_be_aborted(ctx: Context) -> None:
    def trace(trigger: str, source: State, dest: State) -> None:
        raise KeyboardInterrupt

    with image_fd() as fd:
        restore = Restore(ctx, fd, FakeTarget(ctx), trace=trace)
        with pytest.raises(KeyboardInterrupt):
            run_until_idle(ctx)
        restore.ao.abort()
        restore.run()
    assert isinstance(restore.error, Aborted)


def test_ctrl_c_in_the_trace_of_the_last_transition_does_not_keep_the_end_back(
    ctx: Context,
) -> None:
    def trace(trigger: str, source: State, dest: State) -> None:
        if dest is State.DONE:
            raise KeyboardInterrupt

    with image_fd() as fd:
        restore = Restore(ctx, fd, FakeTarget(ctx), trace=trace)
        with pytest.raises(KeyboardInterrupt):
            run_until_idle(ctx)
        restore.run()
    restore.ao.result()


@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.MEMORY, Phase.RECORDS])
def test_ctrl_c_in_the_blocking_call(tmp_path: Path, phase: Phase) -> None:
    image = tmp_path / "image"
    image.write_bytes(DATA)

    def on_progress(progress: Progress) -> None:
        if progress.phase is phase:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        libxlsr.restore(image, target="image", output=tmp_path / "guest", on_progress=on_progress)
    assert os.listdir(tmp_path) == ["image"]


def test_progress_ends_before_the_completion(ctx: Context) -> None:
    told: list[object] = []
    with image_fd() as fd:
        ao = restore_ao(
            ctx, fd, target=FakeTarget(ctx), on_progress=told.append, on_done=told.append
        )
        run_until_idle(ctx)
    assert told[-1] is ao
    assert told.count(ao) == 1
    phases = [progress.phase for progress in told[:-1] if isinstance(progress, Progress)]
    assert len(phases) == len(told) - 1
    order = [Phase.PREPARING, Phase.MEMORY, Phase.RECORDS, Phase.FINISHING]
    assert [phase for phase in order if phase in phases] == order
    assert phases == sorted(phases, key=order.index)


@pytest.mark.parametrize("guest", ["pv", "pvh", "hvm"])
def test_what_the_target_is_told(ctx: Context, guest: str) -> None:
    stream = StreamBuilder(guest, xenstore=[("physmap/a/b", "c")] if guest == "hvm" else ())
    with image_fd(stream.build()) as fd:
        target = FakeTarget(ctx)
        Restore(ctx, fd, target, to_eof=True).run()
    assert target.image is not None
    assert target.image.config is not None
    assert target.image.config.domain_type == guest
    assert target.image.stream_header == libxl.Header()
    emulator = ["emulator_xenstore_data", "emulator_context"] if guest == "hvm" else []
    assert target.calls == ["prepare", "restore_libxc", *emulator, "finish"]
