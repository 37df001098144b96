"""Reading what is ready: exactly that, and never waiting for what somebody else has taken."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libxlsr.events import READ, Context, CopyResult, Datacopier
from libxlsr.events.read_ready import read_ready_for

RESCUE = 10.0
"""Seconds after which a read that waits gets a byte, so that its test fails instead of hanging."""

needs_splice = pytest.mark.skipif(sys.version_info < (3, 10), reason="os.splice is of Python 3.10")


@pytest.fixture(params=["Linux 6.4", "older"], autouse=True)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With RWF_NOWAIT for pipes and sockets, where the machine has it; and without."""
    if request.param == "older":

        def preadv(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

        monkeypatch.setattr(os, "preadv", preadv)
    return str(request.param)


@pytest.fixture(
    params=[
        "socket",
        pytest.param("pipe", marks=needs_splice),
        pytest.param("named pipe", marks=needs_splice),
        pytest.param("pipe that was spliced from", marks=needs_splice),
    ]
)
def ends(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[int]]:
    """A reading end that blocks, and the writing end. A test may take either off the list."""
    if request.param == "socket":
        fds = [end.detach() for end in socket.socketpair()]
    elif request.param == "named pipe":
        os.mkfifo(tmp_path / "fifo")
        both = os.open(tmp_path / "fifo", os.O_RDWR)
        fds = [os.open(tmp_path / "fifo", flags) for flags in (os.O_RDONLY, os.O_WRONLY)]
        os.close(both)
    else:
        fds = list(os.pipe())
        if "spliced" in request.param:
            sink = os.open(os.devnull, os.O_WRONLY)
            os.write(fds[1], b"x")
            assert os.splice(fds[0], sink, 1) == 1
            os.close(sink)
    yield fds
    for fd in fds:
        os.close(fd)


@pytest.fixture
def rescue(ends: list[int]) -> Iterator[None]:
    """Ends a read() that waits, in the end."""
    timer = threading.Timer(RESCUE, os.write, (ends[1], b"!"))
    timer.start()
    yield
    timer.cancel()
    timer.join()


@pytest.mark.usefixtures("rescue")
def test_nothing_to_read_is_no_wait(ends: list[int]) -> None:
    with pytest.raises(BlockingIOError):
        read_ready_for(ends[0])(ends[0], 8)
    assert os.get_blocking(ends[0])


def test_a_default_timeout_does_not_change_the_fd(
    ends: list[int], request: pytest.FixtureRequest
) -> None:
    socket.setdefaulttimeout(30)
    request.addfinalizer(lambda: socket.setdefaulttimeout(None))
    os.write(ends[1], b"x")
    assert read_ready_for(ends[0])(ends[0], 8) == b"x"
    assert os.get_blocking(ends[0])


@pytest.mark.usefixtures("rescue")
def test_the_datacopier_goes_on_when_somebody_else_was_first(ctx: Context, ends: list[int]) -> None:
    results: list[CopyResult] = []
    Datacopier(ctx).read_exactly(ends[0], 1, results.append, what="x")
    ctx.dispatch({ends[0]: READ})
    assert results == []
    os.write(ends[1], b"x")
    ctx.dispatch({ends[0]: READ})
    assert results[0].data == b"x"


def test_it_takes_what_it_was_asked_for_or_what_there_is(ends: list[int]) -> None:
    read = read_ready_for(ends[0])
    os.write(ends[1], b"abcdef")
    assert read(ends[0], 4) == b"abcd"
    assert read(ends[0], 9) == b"ef"


def test_the_end_of_the_file_is_nothing(ends: list[int]) -> None:
    os.close(ends.pop())
    assert read_ready_for(ends[0])(ends[0], 4) == b""


def test_more_than_a_pipe_holds_comes_in_pieces(ends: list[int]) -> None:
    os.set_blocking(ends[1], False)
    sent = os.write(ends[1], os.urandom(1 << 17))
    read, received = read_ready_for(ends[0]), bytearray()
    while len(received) < sent:
        received += read(ends[0], 1 << 20)
    assert len(received) == sent


def test_a_file_is_read_to_its_end_and_a_closed_fd_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abcdef")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    read = read_ready_for(fd)
    assert [bytes(read(fd, 4)) for _ in range(3)] == [b"abcd", b"ef", b""]
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        read_ready_for(fd)(fd, 4)
