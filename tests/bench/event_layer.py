"""What the egc, the loop and the datacopier cost, as multiples of a bare read() of 8 bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from libxlsr.events import READ, Context, CopyResult, Datacopier, run

from .in_turns import Case, Stopwatch, in_turns
from .scale import Scale
from .table import print_table

SIZE = 8  # of a record header, the smallest thing that is read


def main(scale: Scale, directory: Path) -> None:
    """Print the table."""
    count = scale.records
    path = directory / "zeros"
    path.write_bytes(bytes(SIZE * count))
    cases: dict[str, Case] = {
        "bare loop: os.read()": lambda watch: _bare_reads(watch, path, count),
        "egc: call_soon() from a callback": lambda watch: _egc(watch, count),
        "loop: a round with one ready fd": lambda watch: _rounds(watch, path, count),
        "timer: call_later(0) and a round": lambda watch: _timers(watch, count),
        "datacopier: read_exactly()": lambda watch: _datacopier(watch, path, count),
    }
    seconds = in_turns(cases, scale.rounds)
    bare = seconds["bare loop: os.read()"]
    print_table(
        f"Event layer, {SIZE} bytes an event (median of {scale.rounds}, CPU time)",
        ["what", "µs", "/ bare read()"],
        [
            [name, f"{taken / count * 1e6:.2f}", f"{taken / bare:.1f}"]
            for name, taken in seconds.items()
        ],
    )


def _bare_reads(watch: Stopwatch, path: Path, count: int) -> None:
    with path.open("rb", buffering=0) as file, watch.running():
        fd = file.fileno()
        for _ in range(count):
            os.read(fd, SIZE)


def _egc(watch: Stopwatch, count: int) -> None:
    ctx = Context()
    with watch.running():
        _chain(ctx, count, lambda callback: ctx.call_soon(callback))


def _timers(watch: Stopwatch, count: int) -> None:
    ctx = Context()
    with watch.running():
        _chain(ctx, count, lambda callback: ctx.call_later(0, callback))


def _chain(ctx: Context, count: int, again: Callable[[Callable[[], None]], object]) -> None:
    """Run a callback ``count`` times, each time registered by itself."""
    left = count

    def callback() -> None:
        nonlocal left
        left -= 1
        if left:
            again(callback)

    again(callback)
    run(ctx, lambda: not left)


def _rounds(watch: Stopwatch, path: Path, count: int) -> None:
    left = count

    def readable(_ready: int) -> None:
        nonlocal left
        os.read(fd, SIZE)
        left -= 1

    ctx = Context()
    with path.open("rb", buffering=0) as file:
        fd = file.fileno()
        event = ctx.watch_fd(fd, READ, readable)
        with watch.running():
            run(ctx, lambda: not left)
        event.deregister()


def _datacopier(watch: Stopwatch, path: Path, count: int) -> None:
    left = count

    def done(_result: CopyResult) -> None:
        nonlocal left
        left -= 1
        if left:
            copier.read_exactly(fd, SIZE, done, what="zeros")

    ctx = Context()
    copier = Datacopier(ctx)
    with path.open("rb", buffering=0) as file:
        fd = file.fileno()
        with watch.running():
            copier.read_exactly(fd, SIZE, done, what="zeros")
            run(ctx, lambda: not left)
