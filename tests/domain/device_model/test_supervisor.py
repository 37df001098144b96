"""The supervisor ends as its program does, kills it when it is left, leaves it when it is told."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from libxlsr.domain.device_model import supervisor

SLEEP = ["/bin/sleep", "1000"]
PATIENCE = 10.0
"""Seconds after which a wait is given up."""


class Supervisor:
    """A supervisor of a program, and the other end of its control socket."""

    def __init__(self, argv: list[str]) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", supervisor.__file__, str(theirs.fileno()), *argv],
                pass_fds=[theirs.fileno()],
            )
        self.said, self._fds, _flags, _address = socket.recv_fds(self.control, 64, 1)

    @property
    def pid(self) -> int:
        word, number = self.said.split()
        assert word == b"pid"
        return int(number)

    @property
    def pidfd(self) -> int:
        (pidfd,) = self._fds
        return pidfd

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self.control.close()
        self.process.wait()


@contextlib.contextmanager
def keeping(argv: list[str]) -> Iterator[Supervisor]:
    made = Supervisor(argv)
    try:
        yield made
    finally:
        made.close()


def gone(pidfd: int) -> bool:
    """Whether the process has ended, waiting for it."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll()
    return True


@pytest.mark.parametrize("code", [0, 3, 255])
def test_it_ends_with_the_programs_code(code: int) -> None:
    with keeping(["/bin/sh", "-c", f"exit {code}"]) as kept:
        assert kept.process.wait() == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_it_ends_by_the_programs_signal(number: signal.Signals) -> None:
    with keeping(SLEEP) as kept:
        os.kill(kept.pid, number)
        assert kept.process.wait() == -number


def test_the_program_has_a_session_and_signals_of_its_own() -> None:
    with keeping(SLEEP) as kept:
        assert os.getsid(kept.pid) == kept.pid
        lines = Path(f"/proc/{kept.pid}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines)
        assert int(status["SigIgn"], 16) & 1 << signal.SIGPIPE - 1 == 0
        # It has another one for a moment: its loader opens libraries.
        deadline = time.monotonic() + PATIENCE
        while os.listdir(f"/proc/{kept.pid}/fd") != ["0", "1", "2"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_left_alone_it_kills_the_program() -> None:
    with keeping(SLEEP) as kept:
        kept.control.close()
        assert gone(kept.pidfd)
        assert kept.process.wait() == -signal.SIGKILL


def test_told_to_it_leaves_the_program() -> None:
    with keeping(SLEEP) as kept:
        kept.control.send(b"detach")
        assert kept.process.wait() == 0
        os.kill(kept.pid, 0)
        signal.pidfd_send_signal(kept.pidfd, signal.SIGKILL)
        assert gone(kept.pidfd)


def test_its_pidfd_is_the_programs_when_that_has_been_reaped_too() -> None:
    with keeping(SLEEP) as kept:
        signal.pidfd_send_signal(kept.pidfd, signal.SIGKILL)
        assert kept.process.wait() == -signal.SIGKILL
        with pytest.raises(ProcessLookupError):
            signal.pidfd_send_signal(kept.pidfd, 0)


def test_what_can_not_be_executed() -> None:
    with keeping(["/no/such/program"]) as kept:
        assert kept.said == b"errno %d" % errno.ENOENT
        assert kept.process.wait() == 1
