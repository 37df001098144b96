"""Forked children that end with their parent, however it ends.

The parent holds the write end of a pipe, and nobody else does. A thread in each child waits for it
to close. PR_SET_PDEATHSIG would do it with less, but it fires when the parent's *thread* ends.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Lifeline:
    """To be made by the parent before it forks. Raises OSError."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe2(os.O_CLOEXEC)

    @contextmanager
    def forking(self) -> Iterator[None]:
        """In the parent, round its forks: signals wait, or one would call the parent's handlers in
        a child that has not got hold of the line yet."""
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            # Within: it lets those that have come be handled, when all are blocked already.
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def hold(self) -> None:
        """In a child forked within `forking`, as its first act: end it when the parent is gone or
        cuts the line, and at a signal. Ctrl-C reaches the whole process group; the parent says what
        there is to say."""
        self.cut()  # the child's own copy
        threading.Thread(target=self._wait, daemon=True).start()
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _wait(self) -> None:
        os.read(self._read_end, 1)
        os._exit(1)

    def cut(self) -> None:
        """In the parent: end all children. Again, it does nothing."""
        if self._write_end >= 0:
            fd, self._write_end = self._write_end, -1  # a signal may come between them
            os.close(fd)

    def close(self) -> None:
        """In the parent: end all children that are left, and close the pipe."""
        self.cut()
        os.close(self._read_end)
