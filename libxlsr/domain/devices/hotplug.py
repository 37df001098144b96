"""What a hotplug script that was broken off may leave: its processes, a loop device.

libxl kills a script that takes too long, but not what the script has started; and nobody kills the
script of a child that was itself killed. A script's processes are told by their environment: libxl
gives each the path of its device's backend, which holds the domain's id.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

LOOP_CLR_FD = 0x4C01
"""linux/loop.h."""

KILL_ROUNDS = 20
"""A script may start something between the look at its processes and their end."""


def kill_scripts(domid: int, proc: Path) -> int:
    """Kill every process of this user's that runs for a hotplug script of the domain's.

    Returns how many were killed.
    """
    killed = 0
    for _ in range(KILL_ROUNDS):
        found = list(script_processes(domid, proc))
        if not found:
            break
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
    return killed


def script_processes(domid: int, proc: Path) -> Iterator[int]:
    """The processes of this user's whose environment is a hotplug script's for the domain."""
    wanted = re.compile(rb"(?:\A|\0)XENBUS_PATH=backend/[a-z0-9_]+/%d/\d+(?:\0|\Z)" % domid)
    for entry in proc.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            ours = entry.stat().st_uid == os.geteuid()
            # Empty for one that has ended and waits to be reaped.
            if ours and wanted.search((entry / "environ").read_bytes()):
                yield int(entry.name)


def loops_over(files: Iterable[str], sys: Path) -> set[tuple[str, str]]:
    """(loop device, file) of the loop devices that are set up over one of the files."""
    wanted = {os.path.realpath(file) for file in files}
    found = set()
    for backing in sys.glob("block/loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            file = backing.read_text(errors="surrogateescape").rstrip("\n")
            if file in wanted:
                found.add((f"/dev/{backing.parts[-3]}", file))
    return found


def detach_loop(device: str) -> None:
    """Take the loop device off its file, at its last user's close if it has one. Raises OSError."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, LOOP_CLR_FD)
    finally:
        os.close(fd)
