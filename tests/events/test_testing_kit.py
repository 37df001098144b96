"""The test kit's own promises: scripts, stepping without a hang, and leaks that are seen."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from pathlib import Path

import pytest

from libxlsr.events import READ, Context
from libxlsr.testing import stepping
from libxlsr.testing.clock import FakeClock
from libxlsr.testing.fds import EAGAIN, EOF, ScriptedFd, chunked
from libxlsr.testing.leaks import Holdings


def test_a_script_is_followed_and_then_over() -> None:
    with ScriptedFd([b"abc", EAGAIN, EOF], writes=[2]) as fd:
        number = fd.fileno()
        finished = fd.finished
        assert not finished
        assert os.read(number, 2) == b"ab"
        assert fd.unread == b"c"
        assert os.read(number, 2) == b"c"
        with pytest.raises(BlockingIOError):
            os.read(number, 9)
        assert os.read(number, 9) == b""
        with pytest.raises(AssertionError, match="past the end of the script"):
            os.read(number, 9)
        assert os.write(number, b"xyz") == 2
        assert fd.finished
        with pytest.raises(AssertionError, match=r"write.. of 1 bytes past the end"):
            os.write(number, b"z")
        assert fd.requests == [2, 2, 9, 9, 9]
        assert fd.written == b"xy"


def test_other_fds_are_left_alone_and_all_is_put_back() -> None:
    read, write = os.read, os.write
    read_end, write_end = os.pipe()
    with ScriptedFd([b"a"], [OSError(errno.EPIPE, "Broken pipe")]) as fd, ScriptedFd() as inner:
        os.write(write_end, b"real")
        assert os.read(read_end, 9) == b"real"
        assert os.read(fd.fileno(), 9) == b"a"
        assert inner.finished
        with pytest.raises(BrokenPipeError):
            os.write(fd.fileno(), b"x")
    assert (os.read, os.write) == (read, write)
    os.close(read_end)
    os.close(write_end)


def test_chunked() -> None:
    assert chunked(b"abcde", 2) == [b"ab", b"cd", b"e"]
    assert chunked(b"", 2) == []


def test_run_until_idle_counts_and_gives_up(clock: FakeClock) -> None:
    ctx = Context(clock=clock)
    assert stepping.run_until_idle(ctx) == 0
    ctx.call_soon(int)
    ctx.call_later(0, int)
    assert stepping.run_until_idle(ctx) == 2
    with ScriptedFd() as fd:
        event = ctx.watch_fd(fd.fileno(), READ, lambda ready: None, what="always ready")
        with pytest.raises(AssertionError, match=r"not idle after 10 callbacks.*always ready"):
            stepping.run_until_idle(ctx, steps_max=10)
        event.deregister()


def test_run_until_does_not_hang(ctx: Context) -> None:
    with pytest.raises(AssertionError, match=r"still waiting; registered: \[\]"):
        stepping.run_until(ctx, lambda: False)
    timer = ctx.call_later(1000, print)
    with pytest.raises(AssertionError, match=r"still waiting.*timer at"):
        stepping.run_until(ctx, lambda: False, patience=0)
    with pytest.raises(AssertionError, match=r"still waiting.*timer at"):
        stepping.run_until(ctx, lambda: False, patience=0.001)
    timer.deregister()


def test_each_kind_of_leak_is_seen(tmp_path: Path) -> None:
    before = Holdings.now(str(tmp_path))
    assert before.leaked() == []
    fd = os.open(os.devnull, os.O_RDONLY)
    child = subprocess.Popen(["sleep", "1000"])
    (tmp_path / "left").touch()
    an_fd, a_child, a_file = before.leaked()
    assert an_fd == f"fd {fd}: {os.devnull}"
    assert re.fullmatch(rf"child {child.pid}: \(sleep\) [RSD]", a_child)
    assert a_file == f"file {tmp_path / 'left'}"
    os.close(fd)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert before.leaked()[0] == f"child {child.pid}: (sleep) Z"
    child.wait()
    (tmp_path / "left").unlink()
    assert before.leaked() == []


def test_an_fd_that_now_refers_to_something_else_is_a_leak() -> None:
    first = os.open(os.devnull, os.O_RDONLY)
    before = Holdings.now()
    os.close(first)
    assert before.leaked() == []
    assert os.open("/dev/zero", os.O_RDONLY) == first
    assert before.leaked() == [f"fd {first}: /dev/zero"]
    os.close(first)


def test_garbage_is_collected_before_it_is_called_a_leak() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me = self
            self.fds = os.pipe()

        def __del__(self) -> None:
            for fd in self.fds:
                os.close(fd)

    before = Holdings.now()
    Cycle()
    assert before.leaked() == []


def test_the_fixture_fails_a_test_that_leaks(pytester: pytest.Pytester) -> None:
    conftest = Path(__file__).parent.parent / "conftest.py"
    pytester.makeconftest(conftest.read_text())
    pytester.makepyfile(
        """
        import os, tempfile

        def test_fd():
            os.open("/dev/null", os.O_RDONLY)

        def test_file():
            tempfile.mkdtemp(prefix="mine")

        def test_clean():
            with tempfile.TemporaryFile():
                pass
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines(["*left behind: fd *: /dev/null*", "*left behind: file *mine*"])
