"""How long ``libxlsr restore`` takes beside ``xl restore``: a benchmark, to be run in dom0.

::

    python -m tests.xenlab up
    python -m tests.xenlab install
    python -m tests.xenlab run 'cd /root/libxlsr && python -m tests.xenlab.in_dom0.restore_time'

Both restore the same file, in turns and in the same boot; the clock runs from the command's start
to its end. The third row is the library's call in a process that has imported it, the fourth the
same with a spare helper, as a daemon has both; the last are parts of the command's time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import libxlsr
from libxlsr.events import run

from .guests import Guest, saved_guest

PYTHON = sys.executable
SETTLE = 2.0
"""Seconds in which xenstored and xenconsoled come to rest, and the next spare helper is loaded."""


def command(*arguments: str) -> Callable[[], None]:
    """Runs a command that must succeed."""

    def run() -> None:
        # Not into pipes: the xl that stays to watch the domain would keep them open.
        null = subprocess.DEVNULL
        subprocess.run(arguments, check=True, stdin=null, stdout=null, stderr=null)

    return run


def measure(guest: Guest, rounds: int) -> None:
    """Print a row for each way."""
    ctx = libxlsr.Context()
    with libxlsr.SpareHelper(ctx) as spare:
        image = str(guest.image)
        ways: dict[str, Callable[[], None]] = {
            "xl restore": command("xl", "restore", image),
            "libxlsr restore": command(PYTHON, "-m", "libxlsr", "restore", image),
            "libxlsr.restore()": lambda: _restore(image),
            "libxlsr.restore_ao(), with a spare": lambda: _restore_ao(ctx, image, spare),
            "python": command(PYTHON, "-c", "pass"),
            "python + imports": command(
                PYTHON, "-c", "import libxlsr.cli.restore_command, libxlsr.restoring.xen_target"
            ),
            "python + helper's imports": command(
                PYTHON,
                "-I",
                "-c",
                "import libxlsr.helper.child, libxlsr.domain.save_helper.worker",
            ),
        }
        compare(ctx, guest, ways, rounds)


def settle(ctx: libxlsr.Context) -> None:
    """Let the loop run meanwhile, as a daemon's does."""
    settled: list[bool] = []
    ctx.call_later(SETTLE, settled.append, True)
    run(ctx, lambda: bool(settled))


def compare(
    ctx: libxlsr.Context, guest: Guest, ways: dict[str, Callable[[], None]], rounds: int
) -> None:
    """Take the ways in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            os.sync()
            start = time.monotonic()
            way()
            seconds[name].append(time.monotonic() - start)
            guest.destroy()
            settle(ctx)
    of_xl = median(seconds["xl restore"][1:])
    for name, all_times in seconds.items():
        times = all_times[1:]  # the first round reads the image and the modules from the disk
        print(
            f"| {guest.kind} | {name} | {median(times):.2f} | {min(times):.2f} | {max(times):.2f} "
            f"| {median(times) / of_xl:.2f} |"
        )


def _restore(image: str) -> None:
    libxlsr.restore(image)


def _restore_ao(ctx: libxlsr.Context, image: str, spare: libxlsr.SpareHelper) -> None:
    fd = os.open(image, os.O_RDONLY)
    try:
        options = libxlsr.RestoreOptions(spare_helper=spare)
        ao = libxlsr.restore_ao(
            ctx, fd, libxlsr.RestoreOptions(to_eof=True), target=libxlsr.XenTarget(ctx, options)
        )
        run(ctx, lambda: ao.done)
        ao.result()
    finally:
        os.close(fd)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="counted ones (default: 7)")
    options = parser.parse_args()
    print("| guest | way | median s | min s | max s | of xl restore |")
    print("|---|---|---|---|---|---|")
    for kind in ("pv", "pvh"):
        guest = saved_guest(kind)
        guest.destroy()
        measure(guest, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
