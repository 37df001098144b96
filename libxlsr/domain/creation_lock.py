"""xl's lock: while one process counts free memory and makes a domain of it, no other does.

xl holds it where it may balloon dom0 (autoballoon, xl.conf), from before that until its domain is
there or has failed (xl_vmcontrol.c, acquire_lock). It is a record lock (fcntl). This one is of the
kind that belongs to the open file and not to the process: it excludes xl's, and another restore in
this process too.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

from libxlsr.errors import LibxlsrError, TargetError, TimedOut
from libxlsr.events import Context
from libxlsr.events.chain import Done

LOCK_TIMEOUT = 600.0
"""Seconds; xl waits for ever. Its holder may be reading a large image."""

LOCK_POLL = 0.1


def _whole_file(kind: int) -> bytes:
    """A struct flock."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)


class CreationLock:
    """The step that waits for the lock, which is then held until ``close``."""

    def __init__(self, ctx: Context, path: Path) -> None:
        self._ctx = ctx
        self._path = path
        self._fd: int | None = None

    def start(self, done: Done) -> None:
        """See `Step`."""
        self._done = done
        self._deadline = self._ctx.now() + LOCK_TIMEOUT
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        fd = self._fd = os.open(self._path, flags, stat.S_IWUSR)
        self._timer = self._ctx.call_later(0, self._poll, fd)

    def stop(self) -> None:
        """See `Step`."""
        self._timer.deregister()

    def close(self) -> None:
        """Let the lock go, or never have it; closing twice is harmless."""
        fd, self._fd = self._fd, None
        if fd is not None:
            # A child that was forked meanwhile has the same open file, and would keep the lock.
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_UNLCK))
            os.close(fd)

    def _poll(self, fd: int) -> None:
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                doing = f"could not lock {self._path}"
                self._done(TargetError.from_oserror(error, doing, call="fcntl"))
            elif self._ctx.now() >= self._deadline:
                self._done(self._held_by_another())
            else:
                self._timer = self._ctx.call_later(LOCK_POLL, self._poll, fd)
            return
        self._done(None)

    def _held_by_another(self) -> LibxlsrError:
        return TimedOut(
            f"another domain has been in the making for {LOCK_TIMEOUT:.0f} s: xl, or another "
            f"restore, holds {self._path}",
            remedy="try again when it is done, or without --balloon",
        )
