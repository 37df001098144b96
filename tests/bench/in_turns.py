"""Times pieces of code in this process against each other."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median


class Stopwatch:
    """The CPU time, in seconds, that was spent inside ``with watch.running():``.

    CPU time and not the clock's, because other programs run at the same time; what is measured
    here never waits.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what is spent in this block."""
        start = time.process_time()
        yield
        self.seconds += time.process_time() - start


Case = Callable[[Stopwatch], None]


def in_turns(cases: Mapping[str, Case], rounds: int) -> dict[str, float]:
    """Run all cases ``rounds`` times in turns; the median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            gc.collect()
            watch = Stopwatch()
            case(watch)
            seconds[name].append(watch.seconds)
    return {name: median(some) for name, some in seconds.items()}
