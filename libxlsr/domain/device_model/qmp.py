"""QMP: how a device model is asked and told things, over its Unix socket, on the event loop.

The device model may be under its guest's control. What it says is bounded and checked: one JSON
object a line, a line of `LINE_MAX` bytes at the most, answers to what was asked only.

Source: QEMU's docs/interop/qmp-spec.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from typing import Any, Callable

from libxlsr.errors import LibxlsrError, TargetError
from libxlsr.events import READ, WRITE, Context, FdEvent
from libxlsr.formats.text import printable

log = logging.getLogger(__name__)

LINE_MAX = 1 << 20
"""QMP_MAX_SIZE_RX_BUF (libxl_qmp.c), bytes."""

READ_SIZE = 64 << 10

Answer = Callable[[Any, "LibxlsrError | None"], None]
"""Given what the command returned, or why it did not."""


class QmpError(TargetError):
    """The device model sent something that is not QMP, or could not do what it was told."""


class QmpLost(QmpError):
    """The connection broke."""


class LineParser:
    """Turns received bytes into QMP messages."""

    def __init__(self) -> None:
        self._partial = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages that are whole now. Raises QmpError for anything else than QMP."""
        messages = []
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._append(line)
            whole, self._partial = bytes(self._partial), bytearray()
            if whole.strip():
                messages.append(self._message(whole))
        self._append(rest)
        return messages

    def _append(self, part: bytes) -> None:
        if len(self._partial) + len(part) > LINE_MAX:
            raise QmpError(f"the device model said more than {LINE_MAX} bytes at once")
        self._partial += part

    @staticmethod
    def _message(line: bytes) -> dict[str, Any]:
        try:
            untrusted = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            untrusted = None
        if not isinstance(untrusted, dict):
            shown = printable(line.decode("latin-1"), 60)
            raise QmpError(f"the device model sent something that is not QMP: {shown}")
        return untrusted


class QmpClient:
    """One connection. ``on_lost(error)`` comes once if it breaks, also while nothing is asked."""

    def __init__(self, ctx: Context, path: str, on_lost: Callable[[LibxlsrError], object]) -> None:
        self._ctx = ctx
        self._path = path
        self._on_lost = on_lost
        self._sock: socket.socket | None = None
        self._event: FdEvent | None = None
        self._parser = LineParser()
        self._outgoing = b""
        self._number = 0
        self._answer: Answer | None = None
        self._greeted = False

    def connect(self, answer: Answer) -> bool:
        """Connect; ``answer`` comes when commands can be given.

        False where nobody listens yet; nothing is kept then. Raises OSError for another reason.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            try:
                sock.connect(self._path)
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                sock.close()
                return False
            self._event = self._ctx.watch_fd(sock.fileno(), READ, self._ready, what="QMP")
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        self._answer = answer
        return True

    def execute(self, command: str, answer: Answer, **arguments: Any) -> None:
        """Give one command; ``answer`` comes once, from the loop. One command at a time."""
        assert self._answer is None, f"{command}: another command is not answered yet"
        self._answer = answer
        self._send(command, arguments)

    def close(self) -> None:
        """Close the connection; no callback comes any more. Again is harmless."""
        event, self._event = self._event, None
        if event is not None:
            event.deregister()
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()
        self._answer = None

    def _send(self, command: str, arguments: dict[str, Any]) -> None:
        self._number += 1
        message: dict[str, Any] = {"execute": command, "id": self._number}
        if arguments:
            message["arguments"] = arguments
        self._outgoing += json.dumps(message).encode("ascii") + b"\r\n"
        assert self._event is not None
        self._event.modify(READ | WRITE)

    def _ready(self, ready: int) -> None:
        try:
            if ready & WRITE or self._outgoing:
                self._write()
            if ready & ~WRITE:
                self._read()
        except QmpError as error:
            self._lose(error)
        except OSError as error:
            why = os.strerror(error.errno or 0)
            self._lose(QmpLost(f"the connection to the device model broke: {why}"))

    def _write(self) -> None:
        assert self._sock is not None
        assert self._event is not None
        try:
            sent = self._sock.send(self._outgoing, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        self._outgoing = self._outgoing[sent:]
        if not self._outgoing:
            self._event.modify(READ)

    def _read(self) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        if not data:
            raise QmpLost("the connection to the device model broke: it hung up")
        for message in self._parser.feed(data):
            self._heard(message)
            if self._event is None:  # closed by what came of the message
                return

    def _heard(self, message: dict[str, Any]) -> None:
        if not self._greeted:
            if not isinstance(message.get("QMP"), dict):
                raise QmpError("the device model does not greet as QMP asks for")
            self._greeted = True
            self._send("qmp_capabilities", {})
        elif "event" in message:
            log.debug("the device model tells %s", printable(str(message["event"]), 60))
        elif self._answer is None or message.get("id") != self._number:
            raise QmpError("the device model answered what was not asked")
        elif "error" in message:
            untrusted = message["error"]
            text = untrusted.get("desc") if isinstance(untrusted, dict) else None
            self._answered(None, QmpError(f"the device model says: {printable(str(text), 200)}"))
        elif "return" in message:
            self._answered(message["return"], None)
        else:
            raise QmpError("the device model's answer has neither a result nor an error")

    def _answered(self, value: Any, error: LibxlsrError | None) -> None:
        answer, self._answer = self._answer, None
        assert answer is not None
        answer(value, error)

    def _lose(self, error: QmpError) -> None:
        self.close()
        self._on_lost(error)
