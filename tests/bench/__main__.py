"""``python -m tests.bench``: run benchmarks and print the tables of docs/performance.md."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import (
    event_layer,
    extract_rate,
    many_streams,
    restore_memory,
    restore_rate,
    stream_reader,
    verify_rate,
)
from .scale import FULL, SHORT, Scale

BENCHMARKS: dict[str, Callable[[Scale, Path], None]] = {
    "restore-rate": restore_rate.main,
    "restore-memory": restore_memory.main,
    "extract-rate": extract_rate.main,
    "verify-rate": verify_rate.main,
    "event-layer": event_layer.main,
    "stream-reader": stream_reader.main,
    "many-streams": many_streams.main,
}


def main() -> int:
    """Run the benchmarks that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument(
        "--short", action="store_true", help="small images, few rounds: does it run at all"
    )
    parser.add_argument("--mib", type=int, help="the guests' memory, instead of the usual size")
    parser.add_argument("--rounds", type=int, help="repetitions, instead of the usual number")
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="where images and outputs go, twice the guest's memory (default: %(default)s)",
    )
    options = parser.parse_args()
    unknown = set(options.name) - BENCHMARKS.keys()
    if unknown:
        parser.error(
            f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}"
        )
    scale = SHORT if options.short else FULL
    if options.rounds:
        scale = scale._replace(rounds=options.rounds)
    if options.mib:
        scale = scale._replace(image_mib=options.mib)
    print(f"Python {platform.python_version()}, Linux {platform.release()}")
    for name in options.name or BENCHMARKS:
        with tempfile.TemporaryDirectory(prefix="libxlsr-bench-", dir=options.dir) as directory:
            BENCHMARKS[name](scale, Path(directory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
