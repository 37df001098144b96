"""libxl's list of domain ids that were in use a short while ago.

A new domain must not get the id of one that has just gone, or somebody who still means the old
one would reach the new one (libxl_domain.c, libxl__is_domid_recent). The list is shared with
libxl: lines of CLOCK_MONOTONIC seconds and id, replaced as a whole under a lock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from libxlsr.domain.libxl_files.locks import lock_file
from libxlsr.domain.libxl_files.replaced_file import replace_file

REUSE_TIMEOUT = 60
"""LIBXL_DOMID_REUSE_TIMEOUT, in seconds; the environment variable of that name says otherwise."""


def _timeout() -> int:
    try:
        return int(os.environ["LIBXL_DOMID_REUSE_TIMEOUT"])
    except (KeyError, ValueError):
        return REUSE_TIMEOUT


def _recent(path: Path, now: float) -> Iterator[tuple[int, int]]:
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
            seconds, domid = int(words[0]), int(words[1])
            if int(now) - seconds <= _timeout():
                yield seconds, domid


def is_recent(domid: int, run_dir: Path) -> bool:
    """Whether the id was in use within the last minute. Raises OSError."""
    history = _recent(run_dir / "domid-history", time.monotonic())
    return any(used == domid for _, used in history)


def mark_recent(domid: int, run_dir: Path) -> None:
    """Note that the id is in use no longer. Raises OSError."""
    path = run_dir / "domid-history"
    with lock_file(run_dir / "domid-history.lock"):
        now = time.monotonic()
        lines = [f"{seconds} {used}\n" for seconds, used in _recent(path, now)]
        lines.append(f"{int(now)} {domid}\n")
        replace_file(path, run_dir / "domid-history.new", "".join(lines).encode("ascii"), 0o644)
