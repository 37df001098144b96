"""Children: watched by pidfd, reaped without touching anybody else's, never left behind."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from libxlsr.events import READ, Child, Context, ExitStatus
from libxlsr.testing.leaks import children
from libxlsr.testing.stepping import run_until

SLEEP = ["sleep", "1000"]


@pytest.fixture
def statuses() -> list[ExitStatus]:
    return []


@pytest.fixture
def restore_sigchld() -> Iterator[None]:
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("code", [0, 3, 255])
def test_exit_code(ctx: Context, statuses: list[ExitStatus], code: int) -> None:
    child = Child.spawn(ctx, ["sh", "-c", f"exit {code}"], statuses.append)
    running = [child.running]
    assert ctx.registered() == [f"fd {child._pidfd} read: child {child.pid} (sh)"]
    run_until(ctx, lambda: bool(statuses))
    assert statuses == [ExitStatus(code, None)]
    assert child.exit_status == statuses[0]
    assert [*running, child.running] == [True, False]
    assert statuses[0].success is (code == 0)
    child.kill()
    child.terminate(1)
    child.destroy()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
def test_signal(ctx: Context, statuses: list[ExitStatus], signum: int) -> None:
    child = Child.spawn(ctx, SLEEP, statuses.append)
    child.kill(signum)
    child.kill(signum)
    run_until(ctx, lambda: bool(statuses))
    assert statuses == [ExitStatus(None, signum)]
    assert not statuses[0].success


def test_terminate_is_enough_for_who_listens(ctx: Context, statuses: list[ExitStatus]) -> None:
    child = Child.spawn(ctx, SLEEP, statuses.append)
    child.terminate(grace=10_000)
    child.terminate(grace=1000)
    assert len(ctx.registered()) == 2
    run_until(ctx, lambda: bool(statuses))
    assert statuses == [ExitStatus(None, signal.SIGTERM)]


def test_terminate_kills_who_does_not_listen(ctx: Context, statuses: list[ExitStatus]) -> None:
    read_end, write_end = os.pipe()
    deaf = "trap '' TERM; echo ready; exec sleep 1000"
    child = Child.spawn(ctx, ["sh", "-c", deaf], statuses.append, stdout=write_end)
    os.close(write_end)
    assert os.read(read_end, 6) == b"ready\n"
    os.close(read_end)
    child.terminate(grace=0.01)
    run_until(ctx, lambda: bool(statuses))
    assert statuses == [ExitStatus(None, signal.SIGKILL)]


def test_it_has_its_own_session_its_fds_and_no_others(
    ctx: Context, statuses: list[ExitStatus]
) -> None:
    read_end, write_end = os.pipe()
    inheritable, passed = os.pipe()
    os.set_inheritable(inheritable, True)
    report = (
        "import os; print(os.getsid(0) == os.getpid(), sorted(os.listdir('/proc/self/fd')),"
        " os.getcwd(), dict(os.environ).get('X'))"
    )
    child = Child.spawn(
        ctx,
        [sys.executable, "-I", "-c", report],
        statuses.append,
        pass_fds=[passed],
        stdin=subprocess.DEVNULL,
        stdout=write_end,
        env={"X": "y"},
        cwd="/",
    )
    assert os.getsid(child.pid) == child.pid
    run_until(ctx, lambda: bool(statuses))
    text = os.read(read_end, 4096).decode()
    listing_fd = min({3, 4} - {passed})
    assert text == f"True {sorted(['0', '1', '2', str(passed), str(listing_fd)])} / y\n"
    assert statuses[0].success
    for fd in (read_end, write_end, inheritable, passed):
        os.close(fd)


def test_a_program_that_can_not_be_started(ctx: Context) -> None:
    with pytest.raises(FileNotFoundError):
        Child.spawn(ctx, ["/nonexistent/program"], print)
    with pytest.raises(PermissionError):
        Child.spawn(ctx, ["/"], print)
    with pytest.raises(FileNotFoundError):
        Child.spawn(ctx, ["true"], print, cwd="/nonexistent")


def test_pipes_are_refused(ctx: Context) -> None:
    with pytest.raises(ValueError, match="makes no pipes"):
        Child.spawn(ctx, ["true"], print, stdout=subprocess.PIPE)


def test_somebody_else_reaps_it(ctx: Context, statuses: list[ExitStatus]) -> None:
    child = Child.spawn(ctx, ["true"], statuses.append)
    os.waitpid(child.pid, 0)
    run_until(ctx, lambda: bool(statuses))
    assert statuses == [ExitStatus(None, None)]
    assert not statuses[0].success


@pytest.mark.usefixtures("restore_sigchld")
def test_sigchld_is_ignored(ctx: Context, statuses: list[ExitStatus]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    child = Child.spawn(ctx, SLEEP, statuses.append)
    child.kill()
    run_until(ctx, lambda: bool(statuses))
    assert statuses == [ExitStatus(None, None)]
    child.kill()


@pytest.mark.parametrize("how", ["run", "destroy"])
def test_it_is_gone_before_it_can_be_watched(
    ctx: Context, statuses: list[ExitStatus], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def reaped(pid: int) -> int:
        os.waitpid(pid, 0)
        raise ProcessLookupError(errno.ESRCH, "No such process")

    monkeypatch.setattr(os, "pidfd_open", reaped)
    child = Child.spawn(ctx, ["true"], statuses.append)
    child.kill()
    child.terminate(1)
    assert statuses == []
    if how == "run":
        run_until(ctx, lambda: bool(statuses))
        assert statuses == [ExitStatus(None, None)]
    else:
        child.destroy()
        assert child.exit_status == ExitStatus(None, None)


@pytest.mark.parametrize("reaped", [False, True])
def test_without_a_pidfd_no_child_is_left(
    ctx: Context, monkeypatch: pytest.MonkeyPatch, reaped: bool
) -> None:
    def fail(pid: int) -> int:
        if reaped:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", fail)
    with pytest.raises(OSError, match="Too many open files"):
        Child.spawn(ctx, SLEEP, print)
    assert children() == {}


def test_a_stale_watch_on_the_pidfds_number_leaves_no_child(ctx: Context) -> None:
    number = os.open(os.devnull, os.O_RDONLY)
    stale = ctx.watch_fd(number, READ, print, what="stale")
    os.close(number)
    with pytest.raises(ValueError, match=f"fd {number} is already watched.*stale"):
        Child.spawn(ctx, SLEEP, print)
    assert children() == {}
    stale.deregister()


def test_destroy_reaps_at_once_and_calls_nobody(ctx: Context, statuses: list[ExitStatus]) -> None:
    child = Child.spawn(ctx, SLEEP, statuses.append)
    child.terminate(1000)
    child.destroy()
    assert child.exit_status is not None
    assert child.exit_status.signal in (signal.SIGTERM, signal.SIGKILL)
    assert ctx.registered() == []
    assert children() == {}
    child.destroy()
    assert statuses == []


def test_the_daemons_own_children_stay_its_own(ctx: Context, statuses: list[ExitStatus]) -> None:
    own = subprocess.Popen(["sh", "-c", "exit 7"])
    Child.spawn(ctx, ["true"], statuses.append)
    gc.collect()
    run_until(ctx, lambda: bool(statuses))
    subprocess.run(["true"], check=True)  # subprocess cleans up after itself here
    assert own.wait() == 7
    assert statuses[0].success


def test_readiness_before_the_end_changes_nothing(ctx: Context, statuses: list[ExitStatus]) -> None:
    child = Child.spawn(ctx, SLEEP, statuses.append)
    ctx.dispatch({child._pidfd: READ})
    assert statuses == []
    child.destroy()


def test_an_unexpected_error_of_waitid_is_not_hidden(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(idtype: int, id: int, options: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    child = Child.spawn(ctx, SLEEP, print)
    with monkeypatch.context() as patch:
        patch.setattr(os, "waitid", fail)
        with pytest.raises(OSError, match="Invalid argument"):
            ctx.dispatch({child._pidfd: READ})
    child.destroy()


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (ExitStatus(3, None), "exited with 3"),
        (ExitStatus(None, 9), "was killed by SIGKILL"),
        (ExitStatus(None, 35), "was killed by signal 35"),
        (ExitStatus(None, None), "ended, and its exit status was taken by somebody else"),
    ],
)
def test_exit_status_in_words(status: ExitStatus, text: str) -> None:
    assert str(status) == text
