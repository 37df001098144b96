"""``python -m tests.modelcheck [--deep]``: explore, and print how much that was."""

from __future__ import annotations

import argparse
import logging
import time

from .explore import Explored
from .scenarios import DEEP, SEARCHES


def main() -> None:
    """The command line. An invariant that breaks ends it with the path that breaks it."""
    parser = argparse.ArgumentParser(prog="python -m tests.modelcheck", description=__doc__)
    parser.add_argument("--deep", action="store_true", help="the long search")
    args = parser.parse_args()
    logging.disable()
    started = time.monotonic()
    total = Explored()
    for search in DEEP if args.deep else SEARCHES:
        explored = search.run()
        total += explored
        print(f"{search}: {explored}", flush=True)
    print(f"altogether {total}; {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
