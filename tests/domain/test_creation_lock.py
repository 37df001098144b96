"""xl's lock on the creation of domains, shared with an xl that is made of Python."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from libxlsr.domain.creation_lock import LOCK_POLL, LOCK_TIMEOUT, CreationLock
from libxlsr.errors import LibxlsrError, TargetError, TimedOut
from libxlsr.events import Context
from libxlsr.events.chain import Chain
from libxlsr.testing.clock import FakeClock
from libxlsr.testing.stepping import run_until_idle

# As xl takes it: lockf is fcntl's F_SETLKW. It lets go when its standard input ends.
XL = """\
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


class Taking:
    """One lock that is being taken, or had."""

    def __init__(self, ctx: Context, path: Path) -> None:
        self.errors: list[LibxlsrError | None] = []
        self.lock = CreationLock(ctx, path)
        self.chain = Chain(ctx, iter([self.lock]), self.errors.append, doing="take the lock")
        self.chain.start()
        run_until_idle(ctx)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def still(clock: FakeClock) -> Context:
    """A context on which time passes as the test says."""
    return Context(clock=clock)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "xl"


@pytest.fixture
def xl(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    argv = [sys.executable, "-c", XL, str(path)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process


def let_go(process: subprocess.Popen[str]) -> None:
    process.communicate("")


def test_a_free_lock_is_had_at_once(still: Context, path: Path) -> None:
    first = Taking(still, path)
    assert first.errors == [None]
    first.lock.close()
    first.lock.close()
    second = Taking(still, path)
    assert second.errors == [None]
    second.lock.close()


def test_it_waits_for_xl(
    clock: FakeClock, still: Context, path: Path, xl: subprocess.Popen[str]
) -> None:
    waiting = Taking(still, path)
    clock.advance(LOCK_POLL)
    run_until_idle(still)
    assert waiting.errors == []
    let_go(xl)
    clock.advance(LOCK_POLL)
    run_until_idle(still)
    assert waiting.errors == [None]
    waiting.lock.close()


def test_xl_waits_for_it(still: Context, path: Path) -> None:
    had = Taking(still, path)
    assert had.errors == [None]
    probe = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    argv = [sys.executable, "-W", "ignore", "-c", probe, str(path)]
    assert b"BlockingIOError" in subprocess.run(argv, capture_output=True, check=False).stderr
    had.lock.close()
    assert subprocess.run(argv, check=False).returncode == 0


def test_a_child_that_has_the_open_file_does_not_keep_it(still: Context, path: Path) -> None:
    """As one has that the program forks meanwhile."""
    had = Taking(still, path)
    assert had.lock._fd is not None
    argv = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, pass_fds=[had.lock._fd]):
        had.lock.close()
        again = Taking(still, path)
        assert again.errors == [None]
        again.lock.close()


def test_two_restores_of_one_process_exclude_each_other(
    clock: FakeClock, still: Context, path: Path
) -> None:
    first, second = Taking(still, path), Taking(still, path)
    assert (first.errors, second.errors) == ([None], [])
    first.lock.close()
    clock.advance(LOCK_POLL)
    run_until_idle(still)
    assert second.errors == [None]
    second.lock.close()


def test_it_does_not_wait_for_ever(
    clock: FakeClock, still: Context, path: Path, xl: subprocess.Popen[str]
) -> None:
    waiting = Taking(still, path)
    clock.advance(LOCK_TIMEOUT)
    run_until_idle(still)
    (error,) = waiting.errors
    assert isinstance(error, TimedOut)
    assert f"xl, or another restore, holds {path}" in str(error)
    assert still.registered() == []
    waiting.lock.close()
    let_go(xl)


def test_a_wait_can_be_broken_off(still: Context, path: Path, xl: subprocess.Popen[str]) -> None:
    waiting = Taking(still, path)
    waiting.chain.stop()
    waiting.lock.close()
    assert still.registered() == []
    let_go(xl)


def test_a_directory_that_is_not_there(still: Context, tmp_path: Path) -> None:
    (error,) = Taking(still, tmp_path / "lock" / "xl").errors
    assert isinstance(error, TargetError)
    assert error.errno == errno.ENOENT
