"""A log below /var/log/xen, and its ten predecessors (libxl_create_logfile, libxl_utils.c)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

PREDECESSORS = 10
TAIL = 4096


def open_log(name: str, log_dir: Path) -> tuple[Path, int]:
    """Begin NAME.log anew, the old one becomes NAME.log.1: its path, and an fd to append to it.

    Raises OSError.
    """
    path = log_dir / f"{name}.log"
    if path.exists():
        for number in range(PREDECESSORS - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{path}.{number}", f"{path}.{number + 1}")
        os.replace(path, f"{path}.1")
    return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def last_line(path: Path) -> str | None:
    """The log's last line that is not empty; None where there is none, or no log."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            lines = file.read(TAIL).decode("utf-8", "replace").split("\n")
    except OSError:
        return None
    return next((line.strip() for line in reversed(lines) if line.strip()), None)
