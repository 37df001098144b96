"""Restores on a bare select() loop: what to wait for, wait, say what is ready.

``own_select_loop.py [IMAGE]``. These three lines are the whole loop; a program with fds of its own
adds them to what it waits for. (select() takes no fd of 1024 and above; `libxlsr.run` does.)
"""

from __future__ import annotations

import os
import select
import sys
import tempfile
from pathlib import Path

import libxlsr
from libxlsr.events import READ, WRITE

IMAGE = Path(__file__).with_name("hvm-ticker-xen4.17.save.xz")


def wait(ctx: libxlsr.Context) -> dict[int, int]:
    """Wait for what ``ctx`` waits for; each fd that is ready, with what it is ready for."""
    fds, timeout = ctx.prepare()
    readable, writable, _ = select.select(
        [fd for fd, interest in fds.items() if interest & READ],
        [fd for fd, interest in fds.items() if interest & WRITE],
        [],
        timeout,
    )
    ready = dict.fromkeys(readable, READ)
    for fd in writable:
        ready[fd] = ready.get(fd, 0) | WRITE
    return ready


def main() -> None:
    """Restore the image offline."""
    image = sys.argv[1] if len(sys.argv) > 1 else IMAGE
    ctx = libxlsr.Context()
    fd = os.open(image, os.O_RDONLY)
    with tempfile.TemporaryDirectory() as directory:
        options = libxlsr.RestoreOptions(target="image", output=Path(directory) / "guest")
        ao = libxlsr.restore_ao(ctx, fd, options)
        while not ao.done:
            ctx.dispatch(wait(ctx))
        result = ao.result()
    os.close(fd)
    print(f"{result.guest.name}: {result.guest.pages['NOTAB']} frames restored")


if __name__ == "__main__":
    main()
