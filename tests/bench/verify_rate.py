"""How fast an image is verified, compared with Xen's verify-stream-v2 and with ``cat``.

Whole commands, start-up included, in turns, the image in the page cache. "CPU" is user and system
time; the columns behind it leave out what a command takes for an image of 1 MiB: its start-up. One
command verifies many images as well, which verify-stream-v2 can't: its row is for one of them.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from statistics import median

from tests.tools.verify import xen_utils

from .images import KINDS, write_image
from .processes import LIBXLSR, Took, run_pipeline
from .scale import Scale
from .table import print_table

_MANY = 20
_OF_MANY = f"verify of {_MANY}, each"
_OURS = ("verify", _OF_MANY, "verify --full")


def main(scale: Scale, directory: Path) -> None:
    """Print a table for each kind of image with its frames in order."""
    small = {kind: directory / f"small-{kind}" for kind in ("hvm", "pv")}
    image = directory / "image"
    for kind, path in small.items():
        write_image(path, kind, 1)
        write_image(image, kind, scale.image_mib)
        took = _took(image, path, scale.rounds)
        _print(kind, took, scale, directory)
        image.unlink()


def _commands(image: Path) -> dict[str, list[str]]:
    commands = {
        "verify": [*LIBXLSR, "verify", "-q", str(image)],
        _OF_MANY: [*LIBXLSR, "verify", "-q", *[str(image)] * _MANY],
        "verify --full": [*LIBXLSR, "verify", "-q", "--full", str(image)],
        "cat": ["cat", str(image)],
    }
    script = xen_utils.script("verify-stream-v2")
    if script is not None:
        commands["verify-stream-v2"] = [str(script), "--in", str(image), "--format", "xl"]
    return commands


def _took(image: Path, small: Path, rounds: int) -> dict[tuple[str, bool], list[Took]]:
    """By command and whether it was the small image."""
    took: dict[tuple[str, bool], list[Took]] = {}
    run_pipeline(["cat", str(image)])
    for _ in range(rounds):
        for is_small, path in ((False, image), (True, small)):
            for name, command in _commands(path).items():
                env = xen_utils.environment() if name == "verify-stream-v2" else None
                one = run_pipeline(command, stdout=subprocess.DEVNULL, env=env)
                took.setdefault((name, is_small), []).append(one)
    return took


def _print(
    kind: str, took: dict[tuple[str, bool], list[Took]], scale: Scale, directory: Path
) -> None:
    def images(name: str) -> int:
        return _MANY if name == _OF_MANY else 1

    def wall(name: str, small: bool = False) -> float:
        return median(one.wall for one in took[name, small]) / images(name)

    def cpu(name: str, small: bool = False) -> float:
        return median(one.cpu for one in took[name, small]) / images(name)

    def net(name: str) -> float:
        return max(cpu(name) - cpu(name, True), 0.0001)

    theirs = "verify-stream-v2"
    rows = []
    for name in [*_OURS, "cat", *([theirs] if (theirs, False) in took else [])]:
        row = [name, f"{wall(name):.3f}", f"{cpu(name):.3f}", f"{net(name):.3f}"]
        if (theirs, False) in took:
            row += [f"{value(theirs) / value(name):.1f}" for value in (wall, cpu, net)]
        row += [f"{wall('cat') / wall(name):.2f}"]
        rows.append(row)
    head = ["command", "s", "CPU s", "without start-up"]
    if (theirs, False) in took:
        head += ["times v-s-v2", "in CPU", "without start-up"]
    print_table(
        f"Verify in {directory.parent}, {scale.image_mib} MiB of guest memory, {KINDS[kind]}"
        f" (median of {scale.rounds})",
        [*head, "rate/cat"],
        rows,
    )
