"""How fast an offline restore is, compared with cp of the same file, and with cat through a pipe.

A restore flushes what it wrote before its output gets its name; cp and cat don't. So it is compared
with both: with the copy alone, and with the copy and an fsync() of it (``sync output``). With
``--dir /dev/shm``, where a flush is nothing, only the processors count. Before each program the
disk is given time to finish what the one before it left (``sync -f``).

"Rate" is the restore's in parts of the copy's: 1 is as fast, more is faster. "CPU" is the CPU time
of all processes of a restore as a multiple of the synced copy's; what else the machine does matters
less to it. From a pipe, the copy is ``cat image | cat > output``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import median

from .images import KINDS, write_image
from .processes import LIBXLSR, Took, run_pipeline
from .scale import Scale
from .table import print_table


def main(scale: Scale, directory: Path) -> None:
    """Print the tables: the rate, and the time to start."""
    _compare(scale, directory)
    _start_up(scale, directory)


def _compare(scale: Scale, directory: Path) -> None:
    rows = []
    image, output = directory / "image", directory / "output"
    for kind, name in KINDS.items():
        write_image(image, kind, scale.image_mib)
        sources = _programs(image, output)
        if "-" in kind:
            del sources["pipe"]  # the order of frames matters to what is written only
        for source, programs in sources.items():
            took = _in_turns(programs, output, scale.rounds)
            rows.append([f"{name}, {source}", *_cells(took)])
        image.unlink()
    print_table(
        f"Offline restore in {directory.parent}, {scale.image_mib} MiB of guest memory"
        f" (median of {scale.rounds})",
        [
            "image",
            "restore s",
            "copy s",
            "with sync",
            "rate/copy",
            "/with sync",
            "CPU/synced copy's",
        ],
        rows,
    )


def _programs(image: Path, output: Path) -> dict[str, dict[str, Callable[[], Took]]]:
    """By where the image comes from: what is to be compared."""
    restore = [*LIBXLSR, "restore", "--target", "image", "--output", str(output)]
    flush = ["sync", str(output)]

    def cat() -> Took:
        with output.open("wb") as file:
            return run_pipeline(["cat", str(image)], ["cat"], stdout=file.fileno())

    def cp() -> Took:
        return run_pipeline(["cp", str(image), str(output)])

    return {
        "file": {
            "restore": lambda: run_pipeline([*restore, str(image)]),
            "copy": cp,
            "synced copy": lambda: _added(cp(), run_pipeline(flush)),
        },
        "pipe": {
            "restore": lambda: run_pipeline(["cat", str(image)], [*restore, "-"]),
            "copy": cat,
            "synced copy": lambda: _added(cat(), run_pipeline(flush)),
        },
    }


def _in_turns(
    programs: dict[str, Callable[[], Took]], output: Path, rounds: int
) -> dict[str, list[Took]]:
    took: dict[str, list[Took]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            run_pipeline(["sync", "-f", str(output.parent)])
            took[name].append(program())
            if output.is_dir():
                shutil.rmtree(output)
            else:
                output.unlink()
    return took


def _cells(took: dict[str, list[Took]]) -> list[str]:
    restore, copy, synced = took["restore"], took["copy"], took["synced copy"]
    walls = [f"{median(one.wall for one in some):.2f}" for some in (restore, copy, synced)]
    rates = [
        f"{median(theirs.wall / ours.wall for ours, theirs in zip(restore, some)):.2f}"
        for some in (copy, synced)
    ]
    cpu = median(ours.cpu / theirs.cpu for ours, theirs in zip(restore, synced))
    return [*walls, *rates, f"{cpu:.1f}"]


def _added(one: Took, other: Took) -> Took:
    return Took(one.wall + other.wall, one.cpu + other.cpu)


def _start_up(scale: Scale, directory: Path) -> None:
    """What a restore costs before its first byte: nearly all that one of 64 KiB takes."""
    image, output = directory / "image", directory / "output"
    write_image(image, "hvm", 1)
    programs: dict[str, Callable[[], Took]] = {
        "python -c pass": lambda: run_pipeline([LIBXLSR[0], "-c", "pass"]),
        "libxlsr --version": lambda: run_pipeline([*LIBXLSR, "--version"]),
        "libxlsr restore, 1 MiB": _programs(image, output)["file"]["restore"],
    }
    took: dict[str, list[Took]] = {name: [] for name in programs}
    for _ in range(3 * scale.rounds):
        for name, program in programs.items():
            took[name].append(program())
            shutil.rmtree(output, ignore_errors=True)
    python = [one.wall for one in took["python -c pass"]]
    rows = [
        [
            name,
            f"{median(one.wall for one in some) * 1e3:.0f}",
            f"{median(one.wall / base for one, base in zip(some, python)):.1f}",
        ]
        for name, some in took.items()
    ]
    print_table("Time to start", ["program", "ms", "/ python"], rows)
