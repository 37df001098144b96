"""The state of a fake host from another process: a server in a thread, and a client.

A call is a line of JSON, ``[object, method, arguments]``; the answer ``[value, errno]``.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import socketserver
import threading
from pathlib import Path
from typing import Any, Callable, cast

from libxlsr.testing.fake_xen.failure import XenFailure
from libxlsr.testing.fake_xen.state import HostState


class _Handler(socketserver.StreamRequestHandler):
    """One connection."""

    server: StateServer

    def handle(self) -> None:
        state = self.server.state
        for line in self.rfile:
            where, name, arguments = json.loads(line)
            target = state if where is None else getattr(state, where)
            value, number = None, None
            try:
                with state.lock:
                    value = getattr(target, name)(*arguments)
            except XenFailure as failure:
                number = failure.number
            with contextlib.suppress(OSError):  # it may have been killed meanwhile
                self.wfile.write(json.dumps([value, number]).encode() + b"\n")


class StateServer(socketserver.ThreadingUnixStreamServer):
    """Serves the state on a Unix socket, until `close`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, state: HostState, path: Path) -> None:
        self.state = state
        super().__init__(str(path), _Handler)
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Serve no more."""
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Calls:
    """An object of the state's, whose methods are called there."""

    def __init__(self, call: Callable[[str, tuple[Any, ...]], Any]) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments: self._call(name, arguments)


class _Remote(_Calls):
    """The state: its own methods, and those of its two objects."""

    def __init__(self, path: str) -> None:
        super().__init__(lambda name, arguments: self._ask(None, name, arguments))
        self.lock = contextlib.nullcontext()
        self.handles = 0
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        self._file = sock.makefile("rwb")
        self.hypervisor = _Calls(lambda name, args: self._ask("hypervisor", name, args))
        self.xenstored = _Calls(lambda name, args: self._ask("xenstored", name, args))

    def _ask(self, where: str | None, name: str, arguments: tuple[Any, ...]) -> Any:
        self._file.write(json.dumps([where, name, arguments]).encode() + b"\n")
        self._file.flush()
        line = self._file.readline()
        if not line:
            os._exit(1)  # the test is over
        value, number = json.loads(line)
        if number is not None:
            raise XenFailure(number)
        return value


def connect(path: str) -> HostState:
    """The state that is served there."""
    return cast(HostState, _Remote(path))
