"""The child's side: loads the worker, receives its work, runs it, sends what comes of it.

A worker is a module with ``run(channel) -> dict``. It takes its arguments with
``channel.receive_work()`` once it is ready for them, and blocks as it likes. It raises an error of
libxlsr, or OSError, for what went wrong; its dict is the result.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import select
import socket
import threading
import time
import traceback
from collections.abc import Mapping
from typing import Any

from libxlsr.errors import LibxlsrError, TargetError
from libxlsr.helper import protocol

PROGRESS_INTERVAL = 0.1
"""Seconds between two progress messages at the least: progress is throttled at its source."""


class Channel:
    """The worker's way to talk to the parent."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._next_progress = 0.0
        self._unsent: Mapping[str, int] | None = None

    def log(self, level: int, text: str) -> None:
        """Pass a log line up; ``level`` is one of ``logging``'s."""
        self._send("log", level=level, text=text[: protocol.TEXT_MAX])

    def progress(self, counters: Mapping[str, int]) -> None:
        """Pass counters up, at most ten times a second, and as they are in the end."""
        now = time.monotonic()
        if now < self._next_progress:
            self._unsent = counters
            return
        self._next_progress = now + PROGRESS_INTERVAL
        self._unsent = None
        self._send("progress", counters=dict(counters))

    def call(self, name: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the parent something and wait for its reply."""
        self._send("call", name=name, args=dict(args))
        message = self.receive()
        if message["kind"] != "reply":
            raise protocol.ProtocolError(f"a {message['kind']} message where a reply was due")
        value: dict[str, Any] = message["value"]
        return value

    def receive(self) -> protocol.Message:
        """The parent's next message. Raises EOFError when the parent is gone."""
        datagram = self._sock.recv(protocol.MESSAGE_MAX)
        if not datagram:
            raise EOFError("the parent is gone")
        return protocol.decode(datagram)

    def receive_work(self) -> dict[str, Any]:
        """Wait for the worker's arguments; the fds that come with them are in their places.

        Raises EOFError when the parent is gone, and OSError when there is no room for the fds.
        """
        datagram, fds, flags, _address = socket.recv_fds(
            self._sock, protocol.MESSAGE_MAX, protocol.FDS_MAX, socket.MSG_CMSG_CLOEXEC
        )
        if flags & socket.MSG_CTRUNC:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        if not datagram:
            raise EOFError("the parent is gone")
        message = protocol.decode(datagram)
        return {**message["args"], **dict(zip(message["fds"], fds))}

    def send_result(self, value: Mapping[str, Any]) -> None:
        """The worker is done."""
        if self._unsent is not None:
            self._send("progress", counters=dict(self._unsent))
        self._send("result", value=dict(value))

    def send_error(self, error: LibxlsrError) -> None:
        """The worker failed."""
        self._send("error", error=protocol.error_to_fields(error))

    def _send(self, kind: str, **members: object) -> None:
        self._sock.send(protocol.encode(kind, **members))


def _die_with_parent(sock: socket.socket) -> None:
    """Wait in a thread for the parent's end of the socket to close, then exit at once.

    PR_SET_PDEATHSIG would do it with less, but it fires when the parent's *thread* ends.
    """
    poll = select.poll()
    poll.register(sock.fileno(), 0)
    poll.poll()
    os._exit(1)


def main(control_fd: int, worker_name: str) -> int:
    """Run the worker on what comes over the control socket; the exit code of the child."""
    sock = socket.socket(fileno=control_fd)
    sock.set_inheritable(False)  # what the worker starts may outlive it
    threading.Thread(target=_die_with_parent, args=(sock,), daemon=True).start()
    channel = Channel(sock)
    try:
        worker = importlib.import_module(worker_name)
        result = worker.run(channel)
    except EOFError:
        return 1
    except LibxlsrError as error:
        channel.send_error(error)
        return 1
    except OSError as error:
        channel.send_error(TargetError.from_oserror(error, "the helper's work failed"))
        return 1
    except ImportError as error:
        channel.send_error(TargetError(f"the helper can't load what it needs: {error}"))
        return 1
    except MemoryError:
        channel.send_error(TargetError("the helper ran out of memory"))
        return 1
    except Exception as error:
        channel.log(logging.ERROR, traceback.format_exc())
        channel.send_error(TargetError(f"internal error in the helper: {error!r}"))
        return 1
    channel.send_result(result)
    return 0
