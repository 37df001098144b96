"""``python -m tests.soak``: soak, and print what was held after each lap."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

from libxlsr.restoring.image.target import ImageTarget
from libxlsr.testing.in_process import InProcessImageTarget

from .restores import growth, soak

LAPS = 20


def main() -> int:
    """The command line; the exit code says whether anything grew."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--restores", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument(
        "--in-process", action="store_true", help="read memory in this process, not in a helper"
    )
    args = parser.parse_args()
    kind = InProcessImageTarget if args.in_process else ImageTarget
    logging.disable()
    started = time.monotonic()
    laps = []
    print("| restores | done | damaged | aborted | fds | children | resident MiB |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(prefix="libxlsr-soak-") as directory:
        for lap in soak(Path(directory), args.restores, LAPS, kind):
            laps.append(lap)
            counts = [lap.restores, *(lap.outcomes[how] for how in ("done", "damaged", "aborted"))]
            counts += [len(lap.held.fds), len(lap.held.children)]
            cells = [*(f"{count:,}" for count in counts), f"{lap.resident / (1 << 20):.1f}"]
            print("|", " | ".join(cells), "|", flush=True)
    print(f"{time.monotonic() - started:.0f} s")
    grown = growth(laps)
    for line in grown:
        print("grew:", line)
    return int(bool(grown))


if __name__ == "__main__":
    sys.exit(main())
