"""How the cost of a record grows with the number of streams on one loop.

``all busy``: n streams share the records and all are always ready. ``one busy``: one stream has
all the records, the other n - 1 wait on pipes to which nobody writes. The bare loop is select() or
poll(), as the built-in loop chooses it, and two os.read() for each record of each ready fd.
``KiB a stream`` is what Python allocated for a reader that waits for its first byte (tracemalloc).
"""

from __future__ import annotations

import os
import resource
import selectors
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from libxlsr.events import Context, run
from libxlsr.events.loop import FD_SETSIZE
from libxlsr.formats import libxl

from .in_turns import Case, Stopwatch, in_turns
from .scale import Scale
from .table import print_table
from .tiny_records import BODY_SIZE, HEADER_SIZE, start_reader, write_tiny_records

STREAMS = (1, 10, 100, 1000)


def main(scale: Scale, directory: Path) -> None:
    """Print the table."""
    _raise_fd_limit(3 * max(STREAMS))
    rows = []
    for streams in STREAMS:
        each = max(scale.records // streams, 1)
        shared, whole = directory / f"shared-{streams}", directory / f"whole-{streams}"
        write_tiny_records(shared, each)
        # Each round with idle streams looks at all of them: fewer rounds do.
        busy = max(scale.records // max(streams // 10, 1), 1)
        write_tiny_records(whole, busy)
        cases = _cases(streams, shared, whole)
        seconds = in_turns(cases, scale.rounds)
        records = {"all": each * streams, "one": busy}
        cells = []
        for load, number in records.items():
            bare, reader = seconds[f"{load}, bare"], seconds[f"{load}, reader"]
            cells += [f"{reader / number * 1e6:.1f}", f"{reader / bare:.1f}"]
        rows.append([str(streams), *cells, f"{_memory(streams) / 1024:.1f}"])
    print_table(
        f"Many streams on one loop (median of {scale.rounds}, CPU time)",
        ["streams", "all busy: µs a record", "/ bare", "one busy: µs", "/ bare", "KiB a stream"],
        rows,
    )


def _cases(streams: int, shared: Path, whole: Path) -> dict[str, Case]:
    def case(path: Path, busy: int, idle: int, bare: bool) -> Case:
        def measure(watch: Stopwatch) -> None:
            with ExitStack() as stack:
                ready = [stack.enter_context(_opened(path)) for _ in range(busy)]
                waiting = [stack.enter_context(_silent_pipe()) for _ in range(idle)]
                (_bare_loop if bare else _readers)(watch, ready, waiting)

        return measure

    return {
        "all, bare": case(shared, streams, 0, True),
        "all, reader": case(shared, streams, 0, False),
        "one, bare": case(whole, 1, streams - 1, True),
        "one, reader": case(whole, 1, streams - 1, False),
    }


def _readers(watch: Stopwatch, busy: list[int], idle: list[int]) -> None:
    left = len(busy)

    def done() -> None:
        nonlocal left
        left -= 1

    ctx = Context()
    for fd in [*busy, *idle]:
        start_reader(ctx, fd, done)
    with watch.running():
        run(ctx, lambda: not left)


def _bare_loop(watch: Stopwatch, busy: list[int], idle: list[int]) -> None:
    fds = [*busy, *idle]
    over = max(fds) >= FD_SETSIZE
    with selectors.PollSelector() if over else selectors.SelectSelector() as selector:
        for fd in fds:
            selector.register(fd, selectors.EVENT_READ)
        for fd in busy:
            os.read(fd, libxl.HEADER_SIZE)
        left = len(busy)
        with watch.running():
            while left:
                for key, _ in selector.select():
                    header = os.read(key.fd, HEADER_SIZE)
                    if header == bytes(HEADER_SIZE):
                        selector.unregister(key.fd)
                        left -= 1
                    elif header[4]:
                        os.read(key.fd, BODY_SIZE)


def _memory(streams: int) -> float:
    """Bytes for each of ``streams`` readers that wait."""
    with ExitStack() as stack:
        fds = [stack.enter_context(_silent_pipe()) for _ in range(streams)]
        ctx = Context()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for fd in fds:
            start_reader(ctx, fd, lambda: None)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return (after - before) / streams


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _silent_pipe() -> Iterator[int]:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


def _raise_fd_limit(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
