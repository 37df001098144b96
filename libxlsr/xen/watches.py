"""xenstore watches on the event loop.

libxenstore reads the connection in a thread of its own once there is a watch, and makes
``xs_fileno`` readable while events wait. They are taken with ``xs_check_watch``, which does not
block, and each is handed to its watch's callback on the egc.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
from typing import Callable

from libxlsr.errors import TargetError
from libxlsr.events import READ, Context, FdEvent
from libxlsr.xen.xenstore import Xenstore

log = logging.getLogger(__name__)


class Watch:
    """One watch. ``close`` it; no callback comes after that."""

    def __init__(self, watches: Watches, path: str, token: str, callback: Callable[[str], None]):
        self.path = path
        self._watches: Watches | None = watches
        self._token = token
        self._callback = callback

    def close(self) -> None:
        """Remove the watch; again is harmless."""
        watches, self._watches = self._watches, None
        if watches is not None:
            watches._remove(self.path, self._token)

    def _fire(self, path: str) -> None:
        if self._watches is not None:
            self._callback(path)


class Watches:
    """All watches of one connection on one event loop.

    The fd is registered while there is a watch, and not otherwise. When the connection breaks, it
    is logged and no watch fires any more: a wait for one needs a deadline of its own.
    """

    def __init__(self, ctx: Context, xenstore: Xenstore) -> None:
        self._ctx = ctx
        self._xenstore = xenstore
        self._tokens = itertools.count(1)
        self._active: dict[str, Watch] = {}
        self._fd_event: FdEvent | None = None

    def watch(self, path: str, callback: Callable[[str], None]) -> Watch:
        """Call ``callback(changed_path)`` at once and after each change of the node or below it.

        xenstored fires a new watch once without a change, so that the caller looks at the state
        that was there before.
        """
        token = f"libxlsr-{next(self._tokens)}"
        watch = Watch(self, path, token, callback)
        lib, pointer = self._xenstore.lib, self._xenstore.pointer
        if self._fd_event is None:
            fd = lib.xs_fileno(pointer)
            if fd < 0:
                raise TargetError(
                    "xenstore: no fd to wait for watches on",
                    errno=self._xenstore.ffi.errno,
                    call="xs_fileno",
                )
            self._fd_event = self._ctx.watch_fd(fd, READ, self._readable)
        self._active[token] = watch
        if not lib.xs_watch(pointer, path.encode(), token.encode()):
            number = self._xenstore.ffi.errno
            self._forget(token)
            raise TargetError(f"xenstore: could not watch {path}", errno=number, call="xs_watch")
        return watch

    def close(self) -> None:
        """Remove every watch that is left."""
        for watch in list(self._active.values()):
            watch.close()

    def _remove(self, path: str, token: str) -> None:
        if token in self._active:
            self._forget(token)
            self._xenstore.lib.xs_unwatch(self._xenstore.pointer, path.encode(), token.encode())

    def _forget(self, token: str) -> None:
        self._active.pop(token, None)
        if not self._active:
            self._stop_listening()

    def _stop_listening(self) -> None:
        event, self._fd_event = self._fd_event, None
        if event is not None:
            event.deregister()

    def _readable(self, _events: int) -> None:
        ffi, lib = self._xenstore.ffi, self._xenstore.lib
        while self._active:
            event = lib.xs_check_watch(self._xenstore.pointer)
            if event == ffi.NULL:
                if ffi.errno not in (errno.EAGAIN, errno.EINTR):
                    log.error("the connection to xenstored broke: %s", os.strerror(ffi.errno))
                    self._active.clear()
                    self._stop_listening()
                return
            try:
                path = ffi.string(event[0]).decode("utf-8", "surrogateescape")
                token = ffi.string(event[1]).decode("utf-8", "surrogateescape")
            finally:
                lib.free(event)
            watch = self._active.get(token)
            if watch is not None:
                self._ctx.call_soon(watch._fire, path)
