"""A leak check: the fds, children and files that this process holds, before and after.

::

    before = Holdings.now()
    ...
    assert before.leaked() == []
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


def open_fds() -> dict[int, str]:
    """Each open fd of this process with what it refers to, as /proc shows it."""
    fds = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            fds[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the fd of the listing itself
            continue
    return fds


def children() -> dict[int, str]:
    """Each child of this process, a zombie too, with its command's name and state.

    Needs a kernel with CONFIG_PROC_CHILDREN; without it no child is seen.
    """
    found = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            pids = (task / "children").read_text().split()
        except FileNotFoundError:  # the thread has ended, or the kernel lacks the file
            continue
        for pid in pids:
            try:
                status = Path(f"/proc/{pid}/stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            found[int(pid)] = status[status.index("(") : status.rindex(")") + 3]
    return found


def files(directories: Iterable[str]) -> set[str]:
    """The paths of what stands directly in the directories."""
    return {entry.path for directory in directories for entry in os.scandir(directory)}


@dataclass(frozen=True)
class Holdings:
    """What this process held at one time."""

    fds: dict[int, str]
    children: dict[int, str]
    files: set[str]
    directories: tuple[str, ...]

    @classmethod
    def now(cls, *directories: str) -> Holdings:
        """What it holds now; files are looked for in ``directories`` only."""
        return cls(open_fds(), children(), files(directories), directories)

    def leaked(self) -> list[str]:
        """What is held now and was not held then, one line each.

        An fd that was closed is no leak, one that now refers to something else is. Garbage that has
        not been collected yet is collected first, because it may hold fds.
        """
        found = self._compare(Holdings.now(*self.directories))
        if found:
            gc.collect()
            found = self._compare(Holdings.now(*self.directories))
        return found

    def _compare(self, after: Holdings) -> list[str]:
        fds = [
            f"fd {fd}: {target}"
            for fd, target in sorted(after.fds.items())
            if self.fds.get(fd) != target
        ]
        pids = [
            f"child {pid}: {command}"
            for pid, command in sorted(after.children.items())
            if pid not in self.children
        ]
        return fds + pids + [f"file {path}" for path in sorted(after.files - self.files)]
