"""Helpers and device models without their processes, for tests of many cases.

The worker's code is the child's, and all of the parent's runs; what a process alone can do (die, be
killed, block on a pipe) is not there.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Callable, cast

from libxlsr.domain.device_model.process import Process
from libxlsr.errors import LibxlsrError, TargetError
from libxlsr.events import READ, Context, FdEvent, ImmediateEvent
from libxlsr.events.chain import Done
from libxlsr.helper.child import Channel
from libxlsr.helper.parent import CallCallback, Helper, HelperDone, LogCallback, ProgressCallback
from libxlsr.testing.fake_xen.child import run_worker
from libxlsr.testing.fake_xen.device_model import GREETING, reply_to, socket_path
from libxlsr.testing.fake_xen.failure import XenFailure
from libxlsr.testing.fake_xen.libraries import Libraries
from libxlsr.testing.fake_xen.state import HostState

PIDS = 1 << 22
"""Beyond every process id (PID_MAX_LIMIT, linux/threads.h): nobody is killed by mistake."""


class InProcessHelper(Helper):
    """Runs its worker in a thread, which runs only while the event loop's thread waits for it."""

    def __init__(
        self,
        ctx: Context,
        worker: str,
        *,
        state: HostState,
        xen: Libraries,
        on_done: HelperDone,
        on_log: LogCallback | None,
        on_progress: ProgressCallback | None,
        on_call: CallCallback | None,
    ) -> None:
        super().__init__(ctx, worker, on_done=on_done)
        self._state = state
        self._xen = xen
        self._log, self._progress, self._call = on_log, on_progress, on_call
        self._turns: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._said: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._next: ImmediateEvent | None = None
        self._over = True

    @property
    def pid(self) -> int | None:
        """A number that is no process's while it runs."""
        return None if self._over else PIDS

    def spawn(self) -> None:
        """Start the worker's thread, which waits for its turn."""
        try:
            self._state.called("spawn", self._worker)
        except XenFailure as failure:
            error = OSError(failure.number, str(failure))
            raise TargetError.from_oserror(error, "can't start a helper process") from None
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._next = self._ctx.call_soon(self._give_turn, None)

    def begin(self, args: Mapping[str, Any], fds: Mapping[str, int] | None = None) -> None:
        """Give the worker its arguments, when it next waits for them."""
        if not self._over:
            self._ctx.call_soon(self._give_turn, {**args, **(fds or {})})

    def abort(self, reason: LibxlsrError) -> None:
        """End the worker; *done* comes later."""
        if not self._over and self._abort_reason is None:
            self._abort_reason = reason
            self._ctx.call_soon(self._give_turn, reason)

    def _give_turn(self, message: Any) -> None:
        """Let the worker run until it waits for the next message, or is at its end."""
        if self._over or self._thread is None:
            return
        if not self._thread.ident:
            self._thread.start()
        else:
            self._turns.put(message)
        done = self._said.get()
        if done is not None:
            done()

    # In the worker's thread.

    def _run(self) -> None:
        result: dict[str, Any] | None = None
        error: LibxlsrError | None = None
        try:
            result = run_worker(self._worker, cast(Channel, _Loopback(self)), self._xen)
        except EOFError:
            error = self._abort_reason
        except LibxlsrError as failure:
            error = failure
        except OSError as failure:
            error = TargetError.from_oserror(failure, "the helper's work failed")
        except Exception as failure:
            error = TargetError(f"internal error in the helper: {failure!r}")
        self._said.put(lambda: self._end(result, error))

    def wait(self, request: Callable[[], object] | None = None) -> Any:
        """Have the loop make the request, and wait for the next message."""
        self._said.put(request)
        message = self._turns.get()
        if isinstance(message, LibxlsrError):
            raise EOFError
        return message

    def ask(self, name: str, args: Mapping[str, Any]) -> Any:
        """A worker's call, and the parent's reply."""
        assert self._call is not None
        call = self._call
        return self.wait(lambda: call(name, dict(args), self._reply_later))

    def _reply_later(self, value: dict[str, Any]) -> None:
        self._ctx.call_soon(self._give_turn, value)

    # At its end.

    def _end(self, result: dict[str, Any] | None, error: LibxlsrError | None) -> None:
        self._over = True
        assert self._thread is not None
        self._thread.join()
        if error is None and self._abort_reason is not None:
            error = self._abort_reason
        self._on_done(None if error is not None else result, error)


class _Loopback:
    """A worker's channel."""

    def __init__(self, helper: InProcessHelper) -> None:
        self._helper = helper

    def receive_work(self) -> dict[str, Any]:
        """The worker's arguments."""
        work: dict[str, Any] = self._helper.wait()
        return work

    def call(self, name: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the parent something."""
        reply: dict[str, Any] = self._helper.ask(name, args)
        return reply

    def log(self, level: int, text: str) -> None:
        """Pass it on."""
        if self._helper._log is not None:
            self._helper._log(level, text)

    def progress(self, counters: Mapping[str, int]) -> None:
        """Pass it on."""
        if self._helper._progress is not None:
            self._helper._progress(counters)


class InProcessDeviceModel(Process):
    """A device model that answers QMP from the same event loop, until it is detached or killed."""

    def __init__(
        self,
        ctx: Context,
        on_failure: Callable[[LibxlsrError], object],
        *,
        state: HostState,
        kept: list[InProcessDeviceModel],
    ) -> None:
        super().__init__(ctx, on_failure)
        self._state = state
        self._kept = kept
        self._listener: socket.socket | None = None
        self._peer: socket.socket | None = None
        self._events: list[FdEvent] = []
        self._pending: ImmediateEvent | None = None
        self.incoming = b""
        """The state that it was started with."""

    def spawn(
        self,
        argv: Sequence[str],
        *,
        pass_fds: Sequence[int],
        output_fd: int,
        env: Mapping[str, str],
    ) -> None:
        """Read the state, and listen."""
        self._called("spawn", "the device model")
        os.write(output_fd, b"no display\n")
        for fd in pass_fds:
            self.incoming += os.pread(fd, os.fstat(fd).st_size, 0)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(socket_path(argv))
        self._listener.listen()
        self._events.append(self._ctx.watch_fd(self._listener.fileno(), READ, self._accept))
        self._kept.append(self)

    def await_pid(self, done: Done) -> None:
        """It has one that is no process's."""

        def running() -> None:
            self.pid = PIDS + len(self._kept)
            done(None)

        self._pending = self._ctx.call_soon(running)

    def stop_waiting(self) -> None:
        """Wait for its pid no longer."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.deregister()

    def detach(self, done: Callable[[], object]) -> None:
        """It stays, and answers nobody any more."""
        self._deafen()
        self._ctx.call_soon(done)

    def kill(self, done: Done) -> None:
        """It is gone."""
        self.stop_waiting()
        self.close()
        self._ctx.call_soon(done, None)

    def close(self) -> None:
        """Take its sockets away."""
        self._deafen()
        for sock in (self._peer, self._listener):
            if sock is not None:
                sock.close()
        self._peer = self._listener = None
        if self in self._kept:
            self._kept.remove(self)

    def _deafen(self) -> None:
        while self._events:
            self._events.pop().deregister()

    def _accept(self, _ready: int) -> None:
        assert self._listener is not None
        self._peer, _address = self._listener.accept()
        self._events.append(self._ctx.watch_fd(self._peer.fileno(), READ, self._readable))
        self._say(GREETING)

    def _readable(self, _ready: int) -> None:
        assert self._peer is not None
        data = self._peer.recv(1 << 16)
        if not data:
            self._events.pop().deregister()
            return
        for line in data.splitlines():
            asked = json.loads(line)
            try:
                self._called("qmp", asked["execute"])
            except OSError as error:
                failed = {"class": "GenericError", "desc": str(error)}
                self._say({"error": failed, "id": asked["id"]})
            else:
                self._say(reply_to(asked))

    def _called(self, name: str, about: str) -> None:
        try:
            self._state.called(name, about)
        except XenFailure as failure:
            raise OSError(failure.number, os.strerror(failure.number)) from None

    def _say(self, message: object) -> None:
        assert self._peer is not None
        self._peer.sendall(json.dumps(message).encode() + b"\r\n")
