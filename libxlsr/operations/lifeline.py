"""Forked children that end with their parent, however it ends.

The parent holds the write end of a pipe, and nobody else does. A thread in each child waits for it
to close. PR_SET_PDEATHSIG would do it with less, but it fires when the parent's *thread* ends.
"""

from __future__ import annotations

import os
import threading


class Lifeline:
    """To be made by the parent before it forks. Raises OSError."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe2(os.O_CLOEXEC)

    def hold(self) -> None:
        """In a child, as its first act: end it when the parent is gone or cuts the line."""
        self.cut()  # the child's own copy
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        os.read(self._read_end, 1)
        os._exit(1)

    def cut(self) -> None:
        """In the parent: end all children. Again, it does nothing."""
        if self._write_end >= 0:
            os.close(self._write_end)
            self._write_end = -1

    def close(self) -> None:
        """In the parent: end all children that are left, and close the pipe."""
        self.cut()
        os.close(self._read_end)
