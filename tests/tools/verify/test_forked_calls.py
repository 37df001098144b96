"""A function in forked processes."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from contextlib import closing

import pytest

from libxlsr.testing.leaks import children
from libxlsr.tools.verify.forked_calls import forked_calls


def test_results_come_in_the_order_of_the_arguments() -> None:
    read_end, write_end = os.pipe()

    def the_first_comes_last(number: int) -> int:
        if number == 0:
            os.read(read_end, 1)
        elif number == 3:
            os.write(write_end, b"x")
        return number * number

    try:
        assert list(forked_calls(the_first_comes_last, range(5), 2)) == [0, 1, 4, 9, 16]
    finally:
        os.close(read_end)
        os.close(write_end)


def test_where_sigchld_is_ignored() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert list(forked_calls(abs, [-1, -2, -3], 2)) == [1, 2, 3]
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_one_that_is_killed_has_no_result() -> None:
    def kill_the_second(number: int) -> int:
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    assert list(forked_calls(kill_the_second, range(4), 2)) == [0, None, 2, 3]


def test_what_a_function_raises_is_not_hidden(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(_number: int) -> int:
        raise AssertionError("a fault of ours")

    assert list(forked_calls(fail, [1], 2)) == [None]
    assert "AssertionError: a fault of ours" in capfd.readouterr().err


def test_without_threads_there_is_no_result_and_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert list(forked_calls(abs, range(3), 2)) == [None, None, None]


def test_without_processes_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    fork = os.fork

    def fork_twice() -> int:
        if len(made) == 2:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        pid = fork()
        made.append(pid)
        return pid

    monkeypatch.setattr(os, "fork", fork_twice)
    with pytest.raises(BlockingIOError):
        list(forked_calls(time.sleep, [1000] * 3, 3))
    assert children() == {}


def test_no_more_than_so_many_at_a_time() -> None:
    with closing(forked_calls(time.sleep, [0, 1000, 1000, 1000], 2)) as results:
        assert next(results) is None
        assert len(children()) <= 2
    assert children() == {}
