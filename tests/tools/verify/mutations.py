"""``python -m tests.tools.verify.mutations``: mutated images, verified and restored.

Each image is one of the kinds below with one thing wrong (`libxlsr.testing.damage`), chosen by a
seed; some are compressed. Whatever it is, verify and restore say the same of it: it is refused by
both, or it restores offline to a guest with the digest that ``verify --digest`` prints. Each one is
checked in a process of its own, which may not take more than 128 MiB or a minute of CPU time, and
in which nothing but an error of libxlsr's may come up. Prints what became of them; exits with 1 if
there was anything else. Restores are flushed to the disk: with TMPDIR=/dev/shm it takes a third of
the time.
"""

from __future__ import annotations

import argparse
import gzip
import lzma
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

from libxlsr.errors import LibxlsrError, StreamError, TargetError
from libxlsr.events import Context
from libxlsr.formats.recognise import COMPRESSED, SIZE, recognise
from libxlsr.restoring.image.target import ImageTarget
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.damage import damage
from libxlsr.testing.in_process import InProcessImageTarget
from libxlsr.testing.pages import random_page
from libxlsr.testing.parts import Part, split
from libxlsr.testing.stepping import run_until
from libxlsr.tools.convert.operation import convert
from libxlsr.tools.verify.verifier import verify
from tests.paths import EXAMPLE, ROOT

from .restored_digest import restored_digest

KINDS: dict[str, dict[str, Any]] = {
    "pv": {"guest": "pv", "vcpus": 2, "batch": 5, "types": {3: 0xF, 4: 0x1, 5: 0xC}},
    "pv32": {"guest": "pv", "guest_width": 4, "version": 2, "pages": 40, "types": {7: 0xE}},
    "pv-live": {"guest": "pv", "dirtied": [[1, 2, 9], [2]], "batch": 7, "verify": True},
    "pv-remus": {"guest": "pv", "checkpoints": [[1], [2, 3]], "pages": 8},
    "pvh": {"guest": "pvh", "vcpus": 3, "types": {3: 0xD, 4: 0xE}},
    "pvh-v2": {"guest": "pvh", "version": 2, "dirtied": [[3, 1]], "batch": 4},
    "pvh-libxl": {"guest": "pvh", "xl_header": False},
    "hvm": {"xenstore": [("physmap/a0000/size", "20000")]},
    "hvm-live": {"dirtied": [[1, 2], [2]], "batch": 3, "verify": True},
    "hvm-remus": {"checkpoints": [[1], [], [3]], "pages": 6},
}
"""What a real Xen wrote: a million frames, most of which don't exist. A hundred times the work."""

EXAMPLE_EVERY = 500

PACKINGS: tuple[Callable[[bytes], bytes], ...] = (
    gzip.compress,
    lzma.compress,
    zstandard.ZstdCompressor(write_checksum=True).compress,
)
PACKINGS_EVERY = 14
"""Of so many images of a kind, one is compressed with each codec."""

SERVE = "import sys; from tests.tools.verify.mutations import serve; serve(int(sys.argv[1]))"
MEMORY_MAX_KIB = 128 << 10
CPU_SECONDS_MAX = 60
SECONDS_MAX = 3600
"""On the clock: on a machine that has other things to do, an image may have to wait."""


class Checked(NamedTuple):
    """What became of an image."""

    outcome: str
    """"restored", "refused", or what should not have been, in words."""
    peak_kib: int
    seconds: float

    @property
    def right(self) -> bool:
        """Whether it is as it has to be."""
        return self.outcome in ("restored", "refused") and self.peak_kib < MEMORY_MAX_KIB


def mutated(seed: int, example: list[Part]) -> tuple[str, bytes, str]:
    """The kind, the bytes, and what was done to them."""
    if _is_example(seed):
        kind, parts = "example", example
    else:
        kind = list(KINDS)[seed % len(KINDS)]
        packing = seed // len(KINDS) % PACKINGS_EVERY
        if packing < len(PACKINGS):
            # Pages as full as a real guest's are: those of a builder compress to next to nothing.
            damaged = damage(StreamBuilder(**KINDS[kind], content=random_page).parts, seed)
            return f"packed {kind}", PACKINGS[packing](damaged.data), damaged.what
        parts = StreamBuilder(**KINDS[kind]).parts
    damaged = damage(parts, seed)
    return kind, damaged.data, damaged.what


def _is_example(seed: int) -> bool:
    return seed % EXAMPLE_EVERY == EXAMPLE_EVERY - 1


def example_parts() -> list[Part]:
    """The parts of the example image."""
    return split(lzma.decompress(EXAMPLE.read_bytes()))


def check(path: Path) -> str:
    """Verify and restore the image at ``path``; "restored", "refused", or what is not right."""
    with path.open("rb") as file:
        structural = verify(file.fileno())
        file.seek(0)  # a decompressor reads on from where the file stands
        whole = verify(file.fileno(), digest=True)
    if not structural.good and whole.good:
        return f"--full likes it, the structural pass says {structural.findings[0]}"
    output = path.with_name("guest")
    try:
        error = _restore(path, output)
        if error is not None:
            if whole.good:
                return f"verify likes it, restore says {error}"
            return "refused" if not output.exists() else f"restore left something: {error}"
        if not whole.good:
            return f"restore took it, verify says {whole.findings[0]}"
        digest, expected = restored_digest(output), whole.digest
        if expected is None:  # it broke off after a checkpoint: what verify read goes further
            expected = _compacted_digest(path)
        return "restored" if digest == expected else f"{digest}, but verify: {expected}"
    finally:
        shutil.rmtree(output, ignore_errors=True)


def _compacted_digest(path: Path) -> str | None:
    """The digest of what ``convert --compact`` makes of an image."""
    compact = path.with_name("compact")
    convert(path, compact, compact=True)
    try:
        with compact.open("rb") as file:
            return verify(file.fileno(), digest=True).digest
    finally:
        compact.unlink()


def _restore(path: Path, output: Path) -> LibxlsrError | None:
    data = path.read_bytes()
    # Checkpoints need a helper: libxc lends its fd to libxl for each. Where the image is packed,
    # nobody knows whether it has any.
    remus = b"\x0e\0\0\0\0\0\0\0" in data
    packed = recognise(data[:SIZE]) in COMPRESSED
    make = ImageTarget if remus or packed else InProcessImageTarget
    ctx = Context()
    with path.open("rb") as file:
        ao = restore_ao(ctx, file.fileno(), RestoreOptions(to_eof=True), target=make(ctx, output))
        run_until(ctx, lambda: ao.done)
    if ctx.registered():
        raise AssertionError(f"still registered: {ctx.registered()}")
    try:
        ao.result()
    except (StreamError, TargetError) as error:
        if "internal error" in str(error):
            raise AssertionError(str(error)) from error
        return error
    return None


def _check_in_child(path: Path) -> Checked:
    """check() in a process of its own, which starts as small as this one is."""
    read, write = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS_MAX, CPU_SECONDS_MAX))
        signal.alarm(SECONDS_MAX)
        try:
            outcome = check(path)
        except BaseException:
            outcome = traceback.format_exc()
        os.write(write, outcome.encode(errors="backslashreplace")[:8000])
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        outcome = pipe.read().decode()
    _, status, usage = os.wait4(child, 0)
    if status:
        outcome = f"ended with {os.waitstatus_to_exitcode(status)}: a hang, or killed"
    peak = max(usage.ru_maxrss, 0)
    return Checked(outcome, peak, time.monotonic() - started)


def serve(fd: int) -> None:
    """Check each path that comes, until None does."""
    logging_off()
    connection = Connection(fd)
    while (path := connection.recv()) is not None:
        connection.send(_check_in_child(path))


def logging_off() -> None:
    """A restore logs its failures; here they are expected."""
    import logging

    logging.getLogger("libxlsr").setLevel(logging.CRITICAL + 1)


def run(seeds: Iterator[int] | range) -> Iterator[tuple[int, str, str, Checked]]:
    """``(seed, kind, what was done, what became of it)`` of each seed's image."""
    ours, theirs = Pipe()
    # Not a fork: that would begin with as much memory as we have.
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(theirs.fileno())],
        cwd=ROOT,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    try:
        with tempfile.TemporaryDirectory(prefix="libxlsr-mutations-") as directory:
            path = Path(directory) / "image"
            example: list[Part] = []
            for seed in seeds:
                if _is_example(seed) and not example:
                    example = example_parts()
                kind, data, what = mutated(seed, example)
                path.write_bytes(data)
                ours.send(path)
                yield seed, kind, what, ours.recv()
                for left in Path(directory).iterdir():  # by one that was killed
                    if left != path:
                        shutil.rmtree(left, ignore_errors=True)
    finally:
        ours.send(None)
        ours.close()
        server.wait()


def main() -> int:
    """Check as many as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.tools.verify.mutations", description=__doc__
    )
    parser.add_argument("--count", type=int, default=10_000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed")
    options = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    peak, slowest, wrong = 0, 0.0, 0
    started = time.monotonic()
    for seed, kind, what, checked in run(range(options.first, options.first + options.count)):
        if not checked.right:
            wrong += 1
            print(f"seed {seed}, {kind}: {what}: {checked}", flush=True)
        if (seed + 1) % 1000 == 0:
            print(f"... up to seed {seed}, {time.monotonic() - started:.0f} s", flush=True)
        counts[kind, checked.outcome if checked.right else "wrong"] += 1
        peak, slowest = max(peak, checked.peak_kib), max(slowest, checked.seconds)
    cpu = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    for kind in sorted({kind for kind, _ in counts}):
        some = {outcome: counts[kind, outcome] for outcome in ("restored", "refused", "wrong")}
        print(f"{kind:16}", *(f"{number:6} {outcome}" for outcome, number in some.items()))
    print(
        f"{counts.total()} images, {wrong} wrong; at most {peak >> 10} MiB and {slowest:.1f} s each"
    )
    print(f"took {time.monotonic() - started:.0f} s, {cpu:.0f} s of them on a CPU")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
