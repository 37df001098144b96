"""The datacopier on real fds: pipes, sockets, files, ttys; blocking and not."""

from __future__ import annotations

import errno
import os
import pty
import select
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from libxlsr.events import READ, WRITE, Context, CopyResult, Datacopier, Outcome, run
from libxlsr.events.datacopier import CHUNK
from libxlsr.testing.stepping import run_until, run_until_idle

BLOCKING = pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "nonblocking"])
KINDS = pytest.mark.parametrize("kind", ["pipe", "socket"])


class Pair:
    """Two connected fds: what is written to ``write_end`` arrives at ``read_end``."""

    def __init__(self, kind: str, blocking: bool) -> None:
        if kind == "pipe":
            self.read_end, self.write_end = os.pipe()
        else:
            near, far = socket.socketpair()
            self.read_end, self.write_end = near.detach(), far.detach()
        os.set_blocking(self.read_end, blocking)
        os.set_blocking(self.write_end, blocking)
        self._open = {self.read_end, self.write_end}

    def close(self, fd: int) -> None:
        self._open.discard(fd)
        os.close(fd)

    def close_all(self) -> None:
        for fd in list(self._open):
            self.close(fd)


@pytest.fixture
def make_pair() -> Iterator[Callable[..., Pair]]:
    pairs: list[Pair] = []

    def make(kind: str = "pipe", blocking: bool = True) -> Pair:
        pairs.append(Pair(kind, blocking))
        return pairs[-1]

    yield make
    for pair in pairs:
        pair.close_all()


@pytest.fixture
def results() -> list[CopyResult]:
    return []


@KINDS
@BLOCKING
def test_it_reads_exactly_what_it_was_asked_for(
    ctx: Context,
    make_pair: Callable[..., Pair],
    results: list[CopyResult],
    kind: str,
    blocking: bool,
) -> None:
    pair = make_pair(kind, blocking)
    os.write(pair.write_end, b"headerNEXT")
    datacopier = Datacopier(ctx)
    datacopier.read_exactly(pair.read_end, 6, results.append, what="header")
    active = [datacopier.active]
    run_until_idle(ctx)
    assert results == [CopyResult(Outcome.DONE, 6, bytearray(b"header"), what="header")]
    assert [*active, datacopier.active] == [True, False]
    assert os.read(pair.read_end, 100) == b"NEXT"
    assert os.get_blocking(pair.read_end) is blocking


@KINDS
@BLOCKING
def test_bytes_that_come_one_by_one(
    ctx: Context,
    make_pair: Callable[..., Pair],
    results: list[CopyResult],
    kind: str,
    blocking: bool,
) -> None:
    pair = make_pair(kind, blocking)
    Datacopier(ctx).read_exactly(pair.read_end, 4, results.append, what="x")
    for number in range(4):
        assert results == []
        assert run_until_idle(ctx) == 0
        os.write(pair.write_end, bytes([number]))
        assert run_until_idle(ctx) == 1
    assert results[0].data == b"\0\1\2\3"


@KINDS
@pytest.mark.parametrize("arrived", [b"", b"abc"])
def test_end_of_file_is_not_success(
    ctx: Context,
    make_pair: Callable[..., Pair],
    results: list[CopyResult],
    kind: str,
    arrived: bytes,
) -> None:
    pair = make_pair(kind)
    os.write(pair.write_end, arrived)
    pair.close(pair.write_end)
    Datacopier(ctx).read_exactly(pair.read_end, 4, results.append, what="x")
    run(ctx, lambda: bool(results))
    assert results == [CopyResult(Outcome.EOF, len(arrived), bytearray(arrived), what="x")]


def test_all_of_it_and_then_hangup_is_success(
    ctx: Context, make_pair: Callable[..., Pair], results: list[CopyResult]
) -> None:
    pair = make_pair()
    os.write(pair.write_end, b"abcd")
    pair.close(pair.write_end)
    Datacopier(ctx).read_exactly(pair.read_end, 4, results.append, what="x")
    run(ctx, lambda: bool(results))
    assert results[0].outcome is Outcome.DONE


def test_readiness_without_data_on_a_nonblocking_fd_waits(
    ctx: Context, make_pair: Callable[..., Pair], results: list[CopyResult]
) -> None:
    pair = make_pair(blocking=False)
    Datacopier(ctx).read_exactly(pair.read_end, 1, results.append, what="x")
    ctx.dispatch({pair.read_end: READ})
    assert results == []
    os.write(pair.write_end, b"x")
    run_until_idle(ctx)
    assert results[0].outcome is Outcome.DONE


def test_a_regular_file_longer_than_a_chunk(
    ctx: Context, tmp_path: Path, results: list[CopyResult]
) -> None:
    data = os.urandom(2 * CHUNK + 17)
    (tmp_path / "image").write_bytes(data + b"rest")
    fd = os.open(tmp_path / "image", os.O_RDONLY)
    Datacopier(ctx).read_exactly(fd, len(data), results.append, what="x")
    assert run_until_idle(ctx) == 3
    assert results[0].data == data
    assert os.lseek(fd, 0, os.SEEK_CUR) == len(data)
    os.close(fd)


def test_a_hostile_length_allocates_no_memory_up_front(
    ctx: Context, make_pair: Callable[..., Pair], results: list[CopyResult]
) -> None:
    pair = make_pair()
    os.write(pair.write_end, b"x" * 10)
    pair.close(pair.write_end)
    tracemalloc.start()
    try:
        Datacopier(ctx).read_exactly(pair.read_end, 1 << 40, results.append, what="x")
        run(ctx, lambda: bool(results))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert results[0].outcome is Outcome.EOF
    assert peak < 2 * CHUNK


@pytest.mark.parametrize("side", ["read", "write"])
def test_an_error_of_the_system_is_a_result(
    ctx: Context, tmp_path: Path, results: list[CopyResult], side: str
) -> None:
    datacopier = Datacopier(ctx)
    if side == "read":
        fd = os.open(tmp_path, os.O_RDONLY)
        datacopier.read_exactly(fd, 4, results.append, what="a directory")
        expected = errno.EISDIR
    else:
        fd = os.open("/dev/full", os.O_WRONLY)
        datacopier.write(fd, b"data", results.append, what="a full disk")
        expected = errno.ENOSPC
    run_until_idle(ctx)
    assert results[0].outcome is Outcome.FAILED
    assert results[0].error is not None
    assert results[0].error.errno == expected
    assert results[0].on_write is (side == "write")
    assert results[0].nbytes == 0
    os.close(fd)


def test_a_terminal_that_hung_up(ctx: Context, results: list[CopyResult]) -> None:
    master, slave = pty.openpty()
    os.close(slave)
    Datacopier(ctx).read_exactly(master, 4, results.append, what="console")
    run(ctx, lambda: bool(results))
    assert results[0].error is not None
    assert results[0].error.errno == errno.EIO
    os.close(master)


@KINDS
@BLOCKING
def test_a_blob_larger_than_the_pipe_is_written_without_blocking(
    ctx: Context,
    make_pair: Callable[..., Pair],
    results: list[CopyResult],
    kind: str,
    blocking: bool,
) -> None:
    pair = make_pair(kind, blocking)
    data = os.urandom(1 << 20)
    writer, reader = Datacopier(ctx), Datacopier(ctx)
    writer.write(pair.write_end, data, results.append, what="blob")
    run_until_idle(ctx)  # would never return if a write() blocked
    assert results == []
    reader.read_exactly(pair.read_end, len(data), results.append, what="blob")
    run(ctx, lambda: len(results) == 2)
    assert {result.outcome for result in results} == {Outcome.DONE}
    assert [result.nbytes for result in results] == [len(data)] * 2
    assert [result.data for result in results if result.data] == [data]
    assert os.get_blocking(pair.write_end) is blocking


def test_it_writes_no_more_than_pipe_buf_at_once_to_a_blocking_pipe(
    ctx: Context, make_pair: Callable[..., Pair], results: list[CopyResult]
) -> None:
    pair = make_pair()
    datacopier = Datacopier(ctx)
    datacopier.write(pair.write_end, b"x" * (3 * select.PIPE_BUF), results.append, what="x")
    ctx.dispatch({pair.write_end: WRITE})
    assert len(os.read(pair.read_end, CHUNK)) == select.PIPE_BUF
    datacopier.kill()


@KINDS
def test_writing_to_a_closed_reader_fails_with_epipe(
    ctx: Context, make_pair: Callable[..., Pair], results: list[CopyResult], kind: str
) -> None:
    pair = make_pair(kind)
    pair.close(pair.read_end)
    Datacopier(ctx).write(pair.write_end, b"data", results.append, what="blob")
    run(ctx, lambda: bool(results))
    assert results[0].outcome is Outcome.FAILED
    assert results[0].on_write
    assert isinstance(results[0].error, BrokenPipeError)


def test_a_file_is_written_in_large_pieces(
    ctx: Context, tmp_path: Path, results: list[CopyResult]
) -> None:
    data = os.urandom(CHUNK + 1)
    fd = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    Datacopier(ctx).write(fd, bytearray(data), results.append, what="x")
    assert run_until_idle(ctx) == 2
    os.close(fd)
    assert (tmp_path / "out").read_bytes() == data
    assert results == [CopyResult(Outcome.DONE, len(data), what="x")]


def test_a_written_buffer_is_its_owners_again_in_the_callback(
    ctx: Context, make_pair: Callable[..., Pair]
) -> None:
    pair = make_pair()
    data = bytearray(b"data")
    Datacopier(ctx).write(pair.write_end, data, lambda result: data.clear(), what="x")
    run_until_idle(ctx)
    assert data == b""


@pytest.mark.parametrize("what", ["read", "write", "copy"])
def test_nothing_to_move_is_done_at_once_but_never_inside_the_call(
    ctx: Context, make_pair: Callable[..., Pair], results: list[CopyResult], what: str
) -> None:
    pair = make_pair()
    datacopier = Datacopier(ctx)

    def start() -> None:
        if what == "read":
            datacopier.read_exactly(pair.read_end, 0, results.append, what="x")
        elif what == "write":
            datacopier.write(pair.write_end, b"", results.append, what="x")
        else:
            datacopier.copy(pair.read_end, pair.write_end, results.append, what="x", nbytes=0)

    start()
    assert datacopier.active
    assert results == []
    ctx.dispatch({})
    assert results == [CopyResult(Outcome.DONE, 0, what="x")]
    start()
    datacopier.kill()
    ctx.dispatch({})
    assert len(results) == 1


def test_kill_stops_a_read_with_bytes_on_the_way(
    ctx: Context, make_pair: Callable[..., Pair], results: list[CopyResult]
) -> None:
    pair = make_pair()
    datacopier = Datacopier(ctx)
    datacopier.read_exactly(pair.read_end, 4, results.append, what="x")
    os.write(pair.write_end, b"ab")
    run_until_idle(ctx)
    os.write(pair.write_end, b"cd")
    ctx.gather({pair.read_end: READ})
    datacopier.kill()
    datacopier.kill()
    assert not datacopier.active
    assert ctx.registered() == []
    run_until_idle(ctx)
    assert results == []
    assert os.read(pair.read_end, 4) == b"cd"


def test_it_is_reusable_from_its_own_callback(ctx: Context, make_pair: Callable[..., Pair]) -> None:
    pair = make_pair()
    got: list[bytes] = []
    datacopier = Datacopier(ctx)

    def next_one(result: CopyResult) -> None:
        got.append(bytes(result.data))
        if len(got) < 5:
            datacopier.read_exactly(pair.read_end, len(got), next_one, what="x")

    datacopier.read_exactly(pair.read_end, 0, next_one, what="x")
    os.write(pair.write_end, b"abbcccdddd")
    run_until_idle(ctx)
    assert got == [b"", b"a", b"bb", b"ccc", b"dddd"]


def test_a_second_start_and_nonsense_are_refused_and_register_nothing(
    ctx: Context, make_pair: Callable[..., Pair], results: list[CopyResult]
) -> None:
    pair = make_pair()
    datacopier, other = Datacopier(ctx), Datacopier(ctx)
    datacopier.read_exactly(pair.read_end, 1, results.append, what="first")
    with pytest.raises(RuntimeError, match="second: the datacopier is still busy with first"):
        datacopier.write(pair.write_end, b"x", results.append, what="second")
    with pytest.raises(ValueError, match="already watched"):
        other.read_exactly(pair.read_end, 1, results.append, what="x")
    with pytest.raises(ValueError, match="already watched"):
        other.copy(pair.read_end, pair.write_end, results.append, what="x")
    with pytest.raises(ValueError, match="can't move -1 bytes"):
        other.read_exactly(pair.write_end, -1, results.append, what="x")
    with pytest.raises(ValueError, match="not a file descriptor"):
        other.copy(pair.write_end, -1, results.append, what="x")
    with pytest.raises(TypeError):
        other.write(pair.write_end, "text", results.append, what="x")  # type: ignore[arg-type]
    assert not other.active
    assert len(ctx.registered()) == 1
    datacopier.kill()


@BLOCKING
def test_copy_until_end_of_file_with_a_prefix(
    ctx: Context, make_pair: Callable[..., Pair], results: list[CopyResult], blocking: bool
) -> None:
    source, sink = make_pair("pipe", blocking), make_pair("socket", blocking)
    data, prefix = os.urandom(50_000), b"prefix"
    os.write(source.write_end, data)
    source.close(source.write_end)
    datacopier, collector = Datacopier(ctx), Datacopier(ctx)
    datacopier.copy(source.read_end, sink.write_end, results.append, what="blob", prefix=prefix)
    got: list[CopyResult] = []
    collector.read_exactly(sink.read_end, len(prefix) + len(data), got.append, what="x")
    run(ctx, lambda: bool(got and results))
    assert got[0].data == prefix + data
    assert results == [CopyResult(Outcome.DONE, len(data), what="blob")]


def test_copy_of_n_bytes_leaves_the_next_one(
    ctx: Context, make_pair: Callable[..., Pair], results: list[CopyResult]
) -> None:
    source, sink = make_pair(), make_pair()
    os.write(source.write_end, b"0123456789")
    Datacopier(ctx).copy(
        source.read_end, sink.write_end, results.append, what="x", prefix=b">", nbytes=4
    )
    run_until_idle(ctx)
    assert results == [CopyResult(Outcome.DONE, 4, what="x")]
    assert os.read(sink.read_end, 100) == b">0123"
    assert os.read(source.read_end, 100) == b"456789"


def test_copy_of_a_prefix_and_no_bytes_reads_nothing(
    ctx: Context, make_pair: Callable[..., Pair], results: list[CopyResult]
) -> None:
    source, sink = make_pair(), make_pair()
    os.write(source.write_end, b"x")
    Datacopier(ctx).copy(
        source.read_end, sink.write_end, results.append, what="x", prefix=b"pre", nbytes=0
    )
    run_until_idle(ctx)
    assert results == [CopyResult(Outcome.DONE, 0, what="x")]
    assert os.read(sink.read_end, 100) == b"pre"
    assert os.read(source.read_end, 100) == b"x"


def test_copy_of_n_bytes_that_ends_early(
    ctx: Context, make_pair: Callable[..., Pair], results: list[CopyResult]
) -> None:
    source, sink = make_pair(), make_pair()
    os.write(source.write_end, b"01")
    source.close(source.write_end)
    Datacopier(ctx).copy(source.read_end, sink.write_end, results.append, what="x", nbytes=4)
    run_until_idle(ctx)
    assert results == [CopyResult(Outcome.EOF, 2, what="x")]
    assert os.read(sink.read_end, 100) == b"01"


def test_copy_to_a_closed_reader_counts_what_got_through(
    ctx: Context, make_pair: Callable[..., Pair], results: list[CopyResult]
) -> None:
    source, sink = make_pair(), make_pair()
    Datacopier(ctx).copy(source.read_end, sink.write_end, results.append, what="x", prefix=b">")
    os.write(source.write_end, b"01")
    run_until_idle(ctx)
    sink.close(sink.read_end)
    os.write(source.write_end, b"234")
    run_until_idle(ctx)
    assert results[0].outcome is Outcome.FAILED
    assert results[0].on_write
    assert results[0].nbytes == 2


def test_copy_between_the_two_directions_of_one_socket(
    ctx: Context, make_pair: Callable[..., Pair], results: list[CopyResult]
) -> None:
    pair = make_pair("socket")
    os.write(pair.write_end, b"echo")
    Datacopier(ctx).copy(pair.read_end, pair.read_end, results.append, what="x", nbytes=4)
    run_until_idle(ctx)
    assert results[0].outcome is Outcome.DONE
    assert os.read(pair.write_end, 100) == b"echo"


def test_a_slow_sender_does_not_hold_up_another_reader(
    ctx: Context, make_pair: Callable[..., Pair], results: list[CopyResult]
) -> None:
    slow, fast = make_pair(), make_pair()
    Datacopier(ctx).read_exactly(slow.read_end, 1000, results.append, what="slow")
    Datacopier(ctx).read_exactly(fast.read_end, 3, results.append, what="fast")
    os.write(slow.write_end, b"x")
    os.write(fast.write_end, b"abc")
    run_until(ctx, lambda: bool(results))
    assert results[0].what == "fast"
    slow.close(slow.write_end)
    run_until_idle(ctx)


def test_a_real_producer_on_another_thread(
    ctx: Context, make_pair: Callable[..., Pair], results: list[CopyResult]
) -> None:
    pair = make_pair()
    data = os.urandom(3 * CHUNK + 5)

    def produce() -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(pair.write_end, view[:70_001]) :]

    producer = threading.Thread(target=produce)
    Datacopier(ctx).read_exactly(pair.read_end, len(data), results.append, what="x")
    producer.start()
    run_until(ctx, lambda: bool(results))
    producer.join()
    assert results[0].data == data
