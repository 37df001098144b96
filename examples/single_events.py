"""Restores with one event at a time, as a test of a toolstack does, and tells what happens.

``single_events.py [IMAGE]``: between two events anything can be looked at, and nothing moves.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import libxlsr
from libxlsr.events.loop import Waiter
from libxlsr.stream.reader_machine import State

IMAGE = Path(__file__).with_name("hvm-ticker-xen4.17.save.xz")


def told(trigger: str, source: State, dest: State) -> None:
    """Print one transition of the stream's machine."""
    print(f"  {source.name} → {dest.name} ({trigger})")


def main() -> None:
    """Restore the image offline, step by step."""
    image = sys.argv[1] if len(sys.argv) > 1 else IMAGE
    ctx = libxlsr.Context()
    fd = os.open(image, os.O_RDONLY)
    with tempfile.TemporaryDirectory() as directory, Waiter() as waiter:
        options = libxlsr.RestoreOptions("image", Path(directory) / "guest", trace=told)
        ao = libxlsr.restore_ao(ctx, fd, options)
        while not ao.done:
            if not ctx.step():  # one callback; where none is due, wait for the next event
                ctx.gather(waiter.wait(ctx.prepare()))
        result = ao.result()
    os.close(fd)
    print(f"{result.guest.name}: {result.guest.pages['NOTAB']} frames restored")
    print(f"still registered: {ctx.registered()}")


if __name__ == "__main__":
    main()
