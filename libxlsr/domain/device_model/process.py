"""A device model's process, behind its supervisor: started, detached or killed."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable

from libxlsr.errors import LibxlsrError, TargetError, as_error
from libxlsr.events import READ, Child, Context, ExitStatus, FdEvent
from libxlsr.events.chain import Done

DOING = "start the device model"

KILLED_TIMEOUT = 10.0
"""Seconds until a killed process must have ended."""

_SUPERVISOR = Path(__file__).with_name("supervisor.py")


class Process:
    """One process. ``on_failure(error)`` comes when it could not be started or has ended, unless it
    was detached or killed."""

    def __init__(self, ctx: Context, on_failure: Callable[[LibxlsrError], object]) -> None:
        self._ctx = ctx
        self._on_failure = on_failure
        self._supervisor: Child | None = None
        self._control: socket.socket | None = None
        self._control_event: FdEvent | None = None
        self._pidfd = -1
        self._supervisor_gone: Callable[[], object] | None = None
        """Called instead of ``on_failure`` once the supervisor has been told to end."""

        self.pid: int | None = None
        """Its process id, once it runs."""

    def spawn(
        self,
        argv: Sequence[str],
        *,
        pass_fds: Sequence[int],
        output_fd: int,
        env: Mapping[str, str],
    ) -> None:
        """Start it, what it says going to ``output_fd``. Raises OSError where the supervisor
        can't be started; whether the program can comes with ``await_pid``."""
        ours, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with control:
            control.setblocking(True)  # whatever socket.setdefaulttimeout() was told
            ours.setblocking(False)
            self._control = ours
            self._supervisor = Child.spawn(
                self._ctx,
                [sys.executable, "-I", "-S", str(_SUPERVISOR), str(control.fileno()), *argv],
                self._supervisor_ended,
                pass_fds=[control.fileno(), *pass_fds],
                stdin=subprocess.DEVNULL,
                stdout=output_fd,
                stderr=output_fd,
                env=env,
            )

    def await_pid(self, done: Done) -> None:
        """``done(None)`` comes when it runs; ``on_failure`` when it can't be executed."""

        def readable(_ready: int) -> None:
            self.stop_waiting()
            try:
                self._take_pid()
            except (LibxlsrError, OSError) as error:
                self._on_failure(as_error(error, DOING))
                return
            done(None)

        assert self._control is not None
        self._control_event = self._ctx.watch_fd(self._control.fileno(), READ, readable)

    def stop_waiting(self) -> None:
        """Wait for its pid no longer."""
        event, self._control_event = self._control_event, None
        if event is not None:
            event.deregister()

    def detach(self, done: Callable[[], object]) -> None:
        """It stays, as init's child. ``done()`` comes later, when its supervisor is gone."""
        self._close_pidfd()
        if self._supervisor is None or not self._supervisor.running or self._control is None:
            self._close_control()
            self._ctx.call_soon(done)
            return

        def gone() -> None:
            self._close_control()
            done()

        self._supervisor_gone = gone
        with contextlib.suppress(OSError):
            self._control.send(b"detach")

    def kill(self, done: Done) -> None:
        """End it; ``done(error)`` comes later, when it is gone or can't be killed."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._close_pidfd()
        self._close_control()  # its supervisor kills it, too, and ends
        supervisor = self._supervisor
        if supervisor is None or not supervisor.running:
            self._ctx.call_soon(done, None)
            return

        def gone() -> None:
            timer.deregister()
            done(None)

        def too_late() -> None:
            self._supervisor_gone = None
            supervisor.destroy()
            done(
                TargetError(
                    f"the device model, process {self.pid}, does not end, although it was killed",
                    remedy="it waits for a device or a file server, and ends when that answers",
                )
            )

        self._supervisor_gone = gone
        timer = self._ctx.call_later(KILLED_TIMEOUT, too_late)

    def _take_pid(self) -> None:
        assert self._control is not None
        said, fds, _flags, _address = socket.recv_fds(self._control, 64, 1, socket.MSG_CMSG_CLOEXEC)
        word, _, number = said.partition(b" ")
        if word == b"errno" and number.isdigit():
            raise TargetError("the device model can't be started", errno=int(number), call="execve")
        if word != b"pid" or not number.isdigit():
            raise TargetError("the device model's supervisor ended")
        if not fds:  # there was no room for it
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        # The supervisor's, as the process may have ended and been reaped by now.
        self._pidfd = fds[0]
        self.pid = int(number)

    def _supervisor_ended(self, status: ExitStatus) -> None:
        self.stop_waiting()
        gone, self._supervisor_gone = self._supervisor_gone, None
        if gone is not None:
            gone()
            return
        error: LibxlsrError = TargetError(f"the device model {status}")
        if self.pid is None:
            try:
                self._take_pid()
            except (LibxlsrError, OSError) as failure:
                error = as_error(failure, DOING)
        self._on_failure(error)

    def _close_control(self) -> None:
        self.stop_waiting()
        control, self._control = self._control, None
        if control is not None:
            control.close()

    def _close_pidfd(self) -> None:
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)
