"""The datacopier against what the kernel can't be asked for: EINTR, EAGAIN, odd sizes."""

from __future__ import annotations

import errno

import pytest

from libxlsr.events import Context, CopyResult, Datacopier, Outcome
from libxlsr.testing.fds import EAGAIN, EINTR, EOF, ReadStep, ScriptedFd, WriteStep, chunked
from libxlsr.testing.stepping import run_until_idle

DATA = b"LibxlFmt\0\0\0\2\0\0\0\0"


@pytest.mark.parametrize(
    "reads",
    [
        [DATA],
        [DATA + b"NEXT"],
        chunked(DATA, 1),
        [EINTR, DATA[:3], EAGAIN, EAGAIN, DATA[3:15], EINTR, DATA[15:] + b"N"],
    ],
    ids=["whole", "trailing", "byte by byte", "interrupted"],
)
def test_read(ctx: Context, reads: list[ReadStep]) -> None:
    results: list[CopyResult] = []
    with ScriptedFd(reads) as fd:
        Datacopier(ctx).read_exactly(fd.fileno(), len(DATA), results.append, what="header")
        run_until_idle(ctx)
        assert results == [CopyResult(Outcome.DONE, len(DATA), bytearray(DATA), what="header")]
        assert max(fd.requests) <= len(DATA)
        sizes = [len(step) for step in reads if isinstance(step, bytes)]
        assert len(fd.unread) == sum(sizes) - len(DATA)


def test_a_read_asks_for_the_rest_only(ctx: Context) -> None:
    results: list[CopyResult] = []
    with ScriptedFd([b"ab", b"c", b"def"]) as fd:
        Datacopier(ctx).read_exactly(fd.fileno(), 6, results.append, what="x")
        run_until_idle(ctx)
        assert fd.requests == [6, 4, 3]
        assert fd.finished


def test_end_of_file_after_an_interruption(ctx: Context) -> None:
    results: list[CopyResult] = []
    with ScriptedFd([EINTR, b"ab", EAGAIN, EOF]) as fd:
        Datacopier(ctx).read_exactly(fd.fileno(), 6, results.append, what="x")
        run_until_idle(ctx)
    assert results == [CopyResult(Outcome.EOF, 2, bytearray(b"ab"), what="x")]


def test_a_read_error_in_the_middle_keeps_what_arrived(ctx: Context) -> None:
    results: list[CopyResult] = []
    with ScriptedFd([b"ab", OSError(errno.EIO, "Input/output error")]) as fd:
        Datacopier(ctx).read_exactly(fd.fileno(), 6, results.append, what="x")
        run_until_idle(ctx)
    assert results[0].outcome is Outcome.FAILED
    assert results[0].data == b"ab"
    assert results[0].nbytes == 2
    assert results[0].error is not None
    assert results[0].error.errno == errno.EIO
    assert not results[0].on_write


@pytest.mark.parametrize("writes", [[16], [1] * 16, [EINTR, 3, EAGAIN, 0, 100]])
def test_write(ctx: Context, writes: list[WriteStep]) -> None:
    results: list[CopyResult] = []
    with ScriptedFd(writes=writes) as fd:
        Datacopier(ctx).write(fd.fileno(), DATA, results.append, what="blob")
        run_until_idle(ctx)
        assert fd.written == DATA
        assert fd.finished
    assert results == [CopyResult(Outcome.DONE, len(DATA), what="blob")]


def test_a_write_error_in_the_middle_counts_what_was_written(ctx: Context) -> None:
    results: list[CopyResult] = []
    with ScriptedFd(writes=[5, OSError(errno.ENOSPC, "No space left on device")]) as fd:
        Datacopier(ctx).write(fd.fileno(), DATA, results.append, what="blob")
        run_until_idle(ctx)
    assert results[0].nbytes == 5
    assert results[0].on_write


def test_copy_between_two_scripts(ctx: Context) -> None:
    results: list[CopyResult] = []
    reads: list[ReadStep] = [b"abc", EINTR, b"defg", EAGAIN, EOF]
    with ScriptedFd(reads) as source, ScriptedFd(writes=[1, EAGAIN, 9, EINTR, 2, 2, 9]) as sink:
        Datacopier(ctx).copy(source.fileno(), sink.fileno(), results.append, what="x", prefix=b"<>")
        run_until_idle(ctx)
        assert sink.written == b"<>abcdefg"
        assert source.finished
        assert sink.finished
    assert results == [CopyResult(Outcome.DONE, 7, what="x")]
