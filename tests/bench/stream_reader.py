"""What the machine and the stream reader cost for each record, as multiples of a bare loop."""

from __future__ import annotations

from pathlib import Path

from libxlsr.events import Context, run
from libxlsr.stream.reader_machine import ReaderMachine, Trace

from .in_turns import Case, Stopwatch, in_turns
from .scale import Scale
from .table import print_table
from .tiny_records import read_bare, start_reader, write_tiny_records


def main(scale: Scale, directory: Path) -> None:
    """Print the table."""
    count = scale.records
    path = directory / "stream"
    write_tiny_records(path, count)
    bare_loop = "bare loop: two os.read() a record"
    cases: dict[str, Case] = {
        bare_loop: lambda watch: _bare(watch, path),
        "machine: three triggers": lambda watch: _triggers(watch, count),
        "machine: three triggers, traced": lambda watch: _triggers(watch, count, _no_trace),
        "stream reader: a whole record": lambda watch: _reader(watch, path),
    }
    seconds = in_turns(cases, scale.rounds)
    print_table(
        f"Stream reader, records of 8 + 8 bytes (median of {scale.rounds}, CPU time)",
        ["what", "µs a record", "/ bare loop"],
        [
            [name, f"{taken / count * 1e6:.2f}", f"{taken / seconds[bare_loop]:.1f}"]
            for name, taken in seconds.items()
        ],
    )


def _bare(watch: Stopwatch, path: Path) -> None:
    with path.open("rb", buffering=0) as file, watch.running():
        read_bare(file.fileno())


def _no_trace(*_transition: object) -> None:
    pass


def _triggers(watch: Stopwatch, count: int, trace: Trace | None = None) -> None:
    machine = ReaderMachine(trace)
    machine.header_done()
    with watch.running():
        for _ in range(count):
            machine.record_header_done()
            machine.record_body_done()
            machine.record_processed()


def _reader(watch: Stopwatch, path: Path) -> None:
    finished = []
    ctx = Context()
    with path.open("rb", buffering=0) as file, watch.running():
        start_reader(ctx, file.fileno(), lambda: finished.append(True))
        run(ctx, lambda: bool(finished))
