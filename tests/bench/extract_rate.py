"""How fast memory is extracted, compared with ``cp --sparse=always`` of the same image.

A quarter of the pages are zeros. An extraction flushes what it wrote before its output gets its
name; the copy here is flushed too (``sync output``), with ``--dir /dev/shm`` that is nothing.
"Rate" is the extraction's in parts of the copy's.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from statistics import median

from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.testing.builder import StreamBuilder
from libxlsr.tools.extract.request import FORMATS

from .processes import LIBXLSR, Took, run_pipeline
from .scale import Scale
from .table import print_table

_PAGE = random.Random(1).randbytes(PAGE_SIZE)
_ZEROS = bytes(PAGE_SIZE)


def main(scale: Scale, directory: Path) -> None:
    """Print the table."""
    image, output = directory / "image", directory / "output"
    stream = StreamBuilder(
        "pvh",
        pages=(scale.image_mib << 20) // PAGE_SIZE,
        content=lambda gfn, _: _PAGE if gfn % 4 else _ZEROS,
    )
    with image.open("wb", buffering=0) as file:
        stream.write_to(file.fileno())
    programs: dict[str, Callable[[], Took]] = {"cp": lambda: _copy(image, output)}
    for name in FORMATS:
        command = [*LIBXLSR, "extract", "--format", name, str(image), str(output)]
        programs[name] = lambda command=command: run_pipeline(command)  # type: ignore[misc]
    took: dict[str, list[Took]] = {name: [] for name in programs}
    for _ in range(scale.rounds):
        for name, program in programs.items():
            run_pipeline(["sync", "-f", str(directory)])
            took[name].append(program())
            output.unlink()
    copies = took.pop("cp")
    rows = [
        [
            name,
            f"{median(one.wall for one in some):.2f}",
            f"{median(one.wall for one in copies):.2f}",
            f"{median(copy.wall / ours.wall for ours, copy in zip(some, copies)):.2f}",
            f"{median(ours.cpu / copy.cpu for ours, copy in zip(some, copies)):.1f}",
        ]
        for name, some in took.items()
    ]
    print_table(
        f"Extraction in {directory.parent}, {scale.image_mib} MiB of guest memory"
        f" (median of {scale.rounds})",
        ["format", "extract s", "cp s", "rate/cp", "CPU/cp's"],
        rows,
    )


def _copy(image: Path, output: Path) -> Took:
    copy = run_pipeline(["cp", "--sparse=always", str(image), str(output)])
    flush = run_pipeline(["sync", str(output)])
    return Took(copy.wall + flush.wall, copy.cpu + flush.cpu)
