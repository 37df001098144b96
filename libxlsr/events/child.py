"""Child events: a child process, watched by its pidfd.

SIGCHLD and wait() belong to the program that embeds this, so neither is touched: the pidfd is
readable when the child has ended, waitid(P_PIDFD) reaps this child and no other, and signals are
sent through the pidfd, so that they can't reach a stranger with a recycled pid. Needs Linux 5.4.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Union

from libxlsr.events.context import Context
from libxlsr.events.egc import ImmediateEvent
from libxlsr.events.fd_events import READ, FdEvent
from libxlsr.events.timers import Timer

StdFile = Union[None, int, IO[Any]]


@dataclass(frozen=True)
class ExitStatus:
    """How a child ended: its exit code, or the number of the signal that killed it.

    Both None: somebody else reaped it (a wait() for any child, or an ignored SIGCHLD).
    """

    code: int | None
    signal: int | None

    @property
    def success(self) -> bool:
        """Whether it is known to have exited with 0."""
        return self.code == 0

    def __str__(self) -> str:
        if self.code is not None:
            return f"exited with {self.code}"
        if self.signal is not None:
            return f"was killed by {signal_name(self.signal)}"
        return "ended, and its exit status was taken by somebody else"


UNKNOWN = ExitStatus(None, None)


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9; ``signal 35`` for one that has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Child:
    """A child process in a session of its own.

    ``on_exit(status)`` is called once, on the egc, when it has ended and is reaped. Until then it
    stays registered with the context, so whoever spawns a child runs the loop until that call, or
    calls ``destroy``.
    """

    def __init__(
        self, ctx: Context, pid: int, name: str, on_exit: Callable[[ExitStatus], object]
    ) -> None:
        """For ``spawn``. ``pid`` is a child of this process that nobody else waits for."""
        self._ctx = ctx
        self._on_exit = on_exit
        self._event: FdEvent | ImmediateEvent
        self._killer = Timer(ctx)
        self._pidfd = -1
        self.pid = pid
        self.exit_status: ExitStatus | None = None
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            # It has ended and been reaped already: SIGCHLD is ignored, or somebody waits for all.
            self._event = ctx.call_soon(self._ended, UNKNOWN)
            return
        try:
            self._event = ctx.watch_fd(
                self._pidfd, READ, self._readable, what=f"child {pid} ({name})"
            )
        except BaseException:
            os.close(self._pidfd)
            raise

    @classmethod
    def spawn(
        cls,
        ctx: Context,
        argv: Sequence[str],
        on_exit: Callable[[ExitStatus], object],
        *,
        pass_fds: Sequence[int] = (),
        stdin: StdFile = None,
        stdout: StdFile = None,
        stderr: StdFile = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Child:
        """Start ``argv`` in a session of its own, with no fds but 0, 1, 2 and ``pass_fds``.

        ``stdin``, ``stdout``, ``stderr`` are as in ``subprocess``, but no PIPE: what talks to a
        child on this loop has a pipe or a socketpair of its own. Raises OSError when the program
        can't be started, and no child is left then.
        """
        if subprocess.PIPE in (stdin, stdout, stderr):
            raise ValueError("Child.spawn makes no pipes; pass the fd of one")
        process = subprocess.Popen(
            argv,
            pass_fds=tuple(pass_fds),
            close_fds=True,
            start_new_session=True,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=env,
            cwd=cwd,
        )
        # From here on the child is ours alone. A Popen that believes its process to be running
        # would warn, and reap it behind our back, when it is collected.
        process.returncode = 0
        try:
            return cls(ctx, process.pid, os.path.basename(argv[0]), on_exit)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, 0)
            raise

    @property
    def running(self) -> bool:
        """Whether it is still to be reaped."""
        return self.exit_status is None

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Send it a signal. Harmless when it has ended; ``on_exit`` still comes.

        Nothing happens in a forked process, of which it is no child.
        """
        if self._pidfd >= 0 and not self._ctx.forked:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signum)

    def terminate(self, grace: float) -> None:
        """SIGTERM now, and SIGKILL when it has not ended ``grace`` seconds later."""
        self.kill(signal.SIGTERM)
        if self._pidfd >= 0:
            self._killer.set(grace, self.kill)

    def destroy(self) -> None:
        """SIGKILL, wait until it is dead, reap it. ``on_exit`` does not come.

        For a teardown that can't go back to the loop. It blocks for as long as the kernel needs to
        end the process.
        """
        if self.running:
            self.kill()
            self._release(self._reap(0) or UNKNOWN)

    def _readable(self, ready: int) -> None:
        status = self._reap(os.WNOHANG)
        if status is not None:
            self._ended(status)

    def _ended(self, status: ExitStatus) -> None:
        self._release(status)
        self._on_exit(status)

    def _release(self, status: ExitStatus) -> None:
        self.exit_status = status
        self._killer.stop()
        self._event.deregister()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _reap(self, options: int) -> ExitStatus | None:
        """Reap it. None when it has not ended (with WNOHANG)."""
        if self._pidfd < 0:
            return UNKNOWN
        try:
            info = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | options)
        except OSError as error:
            if error.errno != errno.ECHILD:
                raise
            return UNKNOWN
        if info is None:
            return None
        if info.si_code == os.CLD_EXITED:
            return ExitStatus(info.si_status, None)
        return ExitStatus(None, info.si_status)
