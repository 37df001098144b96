"""The parent's side: starts a helper, hears it out, stops it, and says once what came of it.

``start`` is ``spawn`` and ``begin``. Where it is known beforehand that there will be work, the
child is spawned early and loads its worker meanwhile: that takes longer than much of the work.

A helper is over when two things have happened, in any order: the child was reaped, and its socket
is at its end. Only then is the outcome decided, from everything that was heard, and *done* is
called. A result counts only together with exit code 0, as in
libxl_save_callout.c: a child that reports success and then crashes has failed.

One that does not even end when it is killed is given up, so that nobody waits for it for ever; it
is reaped when it ends after all.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Optional

from libxlsr.errors import LibxlsrError, TargetError
from libxlsr.events import READ, Child, Context, ExitStatus, FdEvent, Timer
from libxlsr.formats.text import printable
from libxlsr.helper import protocol

logger = logging.getLogger(__name__)

TERMINATE_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for a worker that holds nothing that needs undoing: it dies
of the first, as libxl's helper does (libxl_save_callout.c)."""

KILLED_TIMEOUT = 10.0
"""Seconds that a killed child has to end, unless its worker needs another limit. It can't end while
it is in the kernel in an uninterruptible sleep: for a disk, a file server or a hypercall that does
not return."""

STDERR_TAIL = 20
"""Lines of the child's standard error that are kept as its last words (an assertion's text)."""

STDERR_READ = 4096
STDERR_PIPE = 64 * 1024
"""What a pipe holds (pipe(7)): what a child may have said last."""

HelperDone = Callable[[Optional[dict[str, Any]], Optional[LibxlsrError]], None]
LogCallback = Callable[[int, str], None]
ProgressCallback = Callable[[Mapping[str, int]], None]
CallCallback = Callable[[str, dict[str, Any], Callable[[dict[str, Any]], None]], None]

# The child gets the parent's import path rather than its environment: PYTHONPATH may be unset or
# hostile, and the current directory is not for a root process to import from. So it needs no module
# site either, which is half of an interpreter's start. At its end, for which the parent waits, it
# does not take the interpreter apart.
_BOOTSTRAP = (
    "import os, sys, json; sys.path[:] = json.loads(sys.argv[1]);"
    " from libxlsr.helper.child import main; os._exit(main(int(sys.argv[2]), sys.argv[3]))"
)


def _import_path() -> str:
    package_parent = str(Path(__file__).resolve().parents[2])
    rest = [entry for entry in sys.path if os.path.isabs(entry) and entry != package_parent]
    return json.dumps([package_parent, *rest])


class Helper:
    """One child process that runs one worker, a module's name.

    It inherits no file descriptor; those that its work needs are sent to it. ``on_done(result,
    error)`` is called once, on the event loop; exactly one of the two is None.

    The worker's own are ``grace``, the seconds that it has between SIGTERM and SIGKILL to undo what
    it holds, and ``killed_timeout``, the seconds after which a killed child is given up.
    """

    def __init__(
        self,
        ctx: Context,
        worker: str,
        *,
        on_done: HelperDone,
        on_log: LogCallback | None = None,
        on_progress: ProgressCallback | None = None,
        on_call: CallCallback | None = None,
        grace: float = TERMINATE_GRACE,
        killed_timeout: float = KILLED_TIMEOUT,
    ) -> None:
        self._ctx = ctx
        self._grace = grace
        self._killed_timeout = killed_timeout
        self._worker = worker
        self._on_done = on_done
        self._on_log = on_log
        self._on_progress = on_progress
        self._on_call = on_call
        self._child: Child | None = None
        self._sock: socket.socket | None = None
        self._sock_event: FdEvent | None = None
        self._stderr_fd = -1
        self._stderr_event: FdEvent | None = None
        self._stderr_partial = b""
        self._last_words: deque[str] = deque(maxlen=STDERR_TAIL)
        self._status: ExitStatus | None = None
        self._last_log: str | None = None
        self._result: dict[str, Any] | None = None
        self._error: LibxlsrError | None = None
        self._abort_reason: LibxlsrError | None = None
        self._patience = Timer(ctx)
        self.left_behind: TargetError | None = None
        """Names the child where it did not end when it was killed; *done*'s error has it among its
        ``later`` ones."""

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs and was not given up."""
        if self._child is None or self._status is not None or self.left_behind is not None:
            return None
        return self._child.pid

    def start(self, args: Mapping[str, Any], fds: Mapping[str, int] | None = None) -> None:
        """Spawn the child and begin at once. Raises TargetError as `spawn` does."""
        self.spawn()
        self.begin(args, fds)

    def spawn(self) -> None:
        """Start the child. It loads its worker and waits until `begin`, or `abort`.

        Raises TargetError when it can't be started; nothing is left and *done* won't be called.
        """
        with contextlib.ExitStack() as ours_too, contextlib.ExitStack() as theirs_only:
            try:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                ours_too.callback(ours.close)
                theirs_only.callback(theirs.close)
                theirs.setblocking(True)  # whatever socket.setdefaulttimeout() was told
                stderr_read, stderr_write = os.pipe2(os.O_CLOEXEC)
                ours_too.callback(os.close, stderr_read)
                theirs_only.callback(os.close, stderr_write)
                ours.setblocking(False)
                os.set_blocking(stderr_read, False)
                self._child = Child.spawn(
                    self._ctx,
                    [
                        sys.executable,
                        "-I",
                        "-S",
                        "-c",
                        _BOOTSTRAP,
                        _import_path(),
                        str(theirs.fileno()),
                        self._worker,
                    ],
                    self._child_exited,
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr_write,
                )
            except OSError as error:
                raise TargetError.from_oserror(error, "can't start a helper process") from error
            ours_too.pop_all()
        self._sock = ours
        self._sock_event = self._ctx.watch_fd(ours.fileno(), READ, self._sock_readable)
        self._stderr_fd = stderr_read
        self._stderr_event = self._ctx.watch_fd(stderr_read, READ, self._stderr_readable)

    def begin(self, args: Mapping[str, Any], fds: Mapping[str, int] | None = None) -> None:
        """Give the worker its arguments.

        It gets a duplicate of each of ``fds`` and finds its number in the arguments, under the same
        name; the caller's may be closed afterwards. A failure comes through *done*.
        """
        if self._sock is None:  # the child has died, and *done* says of what
            return
        fds = fds or {}
        message = protocol.encode("start", args=dict(args), fds=list(fds))
        try:
            socket.send_fds(self._sock, [message], list(fds.values()))
        except BrokenPipeError as error:
            logger.debug("no work for the helper: %s", error)
        except OSError as error:
            if self._error is None:
                self._error = TargetError.from_oserror(error, "can't give a helper its work")
            self._kill()

    def abort(self, reason: LibxlsrError) -> None:
        """Stop the child: SIGTERM, and SIGKILL if that does not help. *done* comes later, within
        the grace and the timeout of a killed child."""
        if self._abort_reason is None:
            self._abort_reason = reason
            if self._child is not None and self._status is None:
                self._child.terminate(self._grace)
                self._give_up_after(self._grace + self._killed_timeout)

    def _sock_readable(self, _ready: int) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                self._take_datagram(self._receive())
            except ConnectionResetError:
                # The child has ended with messages unread. What it has said itself comes next, to
                # the end; and at once, since libuv watches no fd any more that had an error.
                while self._sock is not None:
                    self._take_datagram(self._receive())

    def _receive(self) -> bytes:
        """The child's next datagram; after an error of another kind the last, which is empty."""
        assert self._sock is not None
        try:
            return self._sock.recv(protocol.MESSAGE_MAX + 1)
        except (BlockingIOError, ConnectionResetError):
            raise
        except OSError:
            return b""

    def _take_datagram(self, datagram: bytes) -> None:
        if not datagram:
            self._close_sock()
            self._check_all_finished()
            return
        try:
            self._handle(protocol.decode(datagram))
        except protocol.ProtocolError as error:
            self._misbehaved(f"said something {error}")

    def _handle(self, message: protocol.Message) -> None:
        kind = message["kind"]
        if kind == "log":
            self._last_log = _last_line(message["text"]) or self._last_log
            if self._on_log is not None:
                self._on_log(message["level"], message["text"])
        elif kind == "progress":
            if self._on_progress is not None:
                self._on_progress(_checked_counters(message["counters"]))
        elif kind == "call":
            if self._on_call is None:
                raise protocol.ProtocolError(f"that asks for {message['name']!r} in vain")
            self._on_call(message["name"], message["args"], self._reply)
        elif kind == "result":
            self._result = message["value"]
        elif kind == "error":
            self._error = protocol.error_from_fields(message["error"])
        else:
            raise protocol.ProtocolError(f"that only a parent says ({kind})")

    def _reply(self, value: dict[str, Any]) -> None:
        if self._sock is None:  # the child died while it waited
            return
        try:
            self._sock.send(protocol.encode("reply", value=value))
        except OSError as error:
            logger.debug("no reply to the helper: %s", error)

    def _misbehaved(self, what: str) -> None:
        if self._error is None:
            self._error = TargetError(f"the helper {what}")
        self._kill()

    def _kill(self) -> None:
        if self._child is not None and self._status is None:
            self._child.kill()
            self._give_up_after(self._killed_timeout)

    def _give_up_after(self, seconds: float) -> None:
        if not self._patience.is_set:
            self._patience.set(seconds, self._give_up)

    def _give_up(self) -> None:
        error = self._error or self._abort_reason
        assert error is not None
        self.left_behind = TargetError(
            f"the helper process {self.pid} does not end, although it was killed",
            remedy="it waits for a device or a file server, and ends when that answers",
        )
        logger.error("%s", self.left_behind)
        error.later.append(self.left_behind)
        if self._sock is not None:
            self._close_sock()
        if self._stderr_fd >= 0:
            self._close_stderr()
        self._on_done(None, error)

    def _stderr_readable(self, _ready: int) -> None:
        with contextlib.suppress(BlockingIOError):
            if not self._take_stderr():
                self._close_stderr()

    def _take_stderr(self) -> bool:
        """Take what is there; False at the end. Raises BlockingIOError where nothing is there."""
        data = os.read(self._stderr_fd, STDERR_READ)
        *lines, self._stderr_partial = (self._stderr_partial + data).split(b"\n")
        for line in lines:
            self._note_words(line)
        if len(self._stderr_partial) > protocol.TEXT_MAX:
            self._note_words(self._stderr_partial)
            self._stderr_partial = b""
        return bool(data)

    def _note_words(self, line: bytes) -> None:
        text = _last_line(line.decode(errors="replace"))
        if text:
            self._last_words.append(text)
            logger.debug("helper %s: %s", self._worker, text)

    def _child_exited(self, status: ExitStatus) -> None:
        self._status = status
        if self.left_behind is not None:  # *done* has come
            return
        self._patience.stop()
        # What the child started (libxl: hotplug scripts) may hold the pipe open for long. All that
        # the child itself has said is in it.
        with contextlib.suppress(BlockingIOError):
            for _ in range(STDERR_PIPE // STDERR_READ):
                if self._stderr_fd < 0 or not self._take_stderr():
                    break
        if self._stderr_fd >= 0:
            self._close_stderr()
        self._check_all_finished()

    def _close_sock(self) -> None:
        assert self._sock is not None
        assert self._sock_event is not None
        self._sock_event.deregister()
        self._sock.close()
        self._sock = None

    def _close_stderr(self) -> None:
        assert self._stderr_event is not None
        self._note_words(self._stderr_partial)
        self._stderr_event.deregister()
        os.close(self._stderr_fd)
        self._stderr_fd = -1

    def _check_all_finished(self) -> None:
        if self._status is None or self._sock is not None:
            return
        error = self._verdict(self._status)
        self._on_done(None if error is not None else self._result, error)

    def _verdict(self, status: ExitStatus) -> LibxlsrError | None:
        """What went wrong, or None; the child's own error is nearer to the cause than an abort."""
        if self._error is not None:
            if isinstance(self._error, TargetError) and self._error.last_log is None:
                self._error.last_log = self._last_log
            return self._error
        if self._abort_reason is not None:
            return self._abort_reason
        if self._result is not None and status.code == 0:
            return None
        if self._result is not None:
            what = f"the helper reported success, but then it {status}"
        else:
            what = f"the helper {status} before it reported a result"
        words = self._last_words[-1] if self._last_words else self._last_log
        return TargetError(what, last_log=words)


def _last_line(untrusted_text: str) -> str:
    """The last line of a text that is not empty, fit for a terminal."""
    lines = untrusted_text.strip().splitlines()
    return printable(lines[-1], protocol.TEXT_MAX) if lines else ""


def _checked_counters(untrusted_counters: Mapping[str, object]) -> Mapping[str, int]:
    counters: dict[str, int] = {}
    for name, value in untrusted_counters.items():
        if type(value) is not int:
            raise protocol.ProtocolError("of progress that is no number")
        counters[name] = value
    return counters
