"""The most memory that an offline restore has resident: the program's and its helper's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from .images import KINDS, write_image
from .scale import Scale
from .table import print_table

_PEAKS = (sys.executable, "-m", f"{__package__}.peaks_of_restore")


def main(scale: Scale, directory: Path) -> None:
    """Print the table."""
    rows = []
    image, output = directory / "image", directory / "output"
    for kind, name in KINDS.items():
        write_image(image, kind, scale.image_mib)
        for source in ("file", "pipe"):
            own, helper = _peaks(image, output, from_pipe=source == "pipe")
            cells = [f"{kib / 1024:.1f}" for kib in (own, helper, own + helper)]
            rows.append([f"{name}, {source}", *cells])
            shutil.rmtree(output)
        image.unlink()
    print_table(
        f"Peak resident memory, MiB, {scale.image_mib} MiB of guest memory",
        ["image", "libxlsr", "helper", "sum"],
        rows,
    )


def _peaks(image: Path, output: Path, *, from_pipe: bool) -> tuple[int, int]:
    """KiB of the restoring process and of its helper.

    Both run below a small process of their own: a program inherits the peak of the process that
    started it, and this one has held an image's frame list.
    """
    command = [*_PEAKS, "restore", "--target", "image", "--output", str(output)]
    if from_pipe:
        with subprocess.Popen(["cat", str(image)], stdout=subprocess.PIPE) as cat:
            said = subprocess.run(
                [*command, "-"], stdin=cat.stdout, stdout=subprocess.PIPE, check=True
            ).stdout
    else:
        said = subprocess.run([*command, str(image)], stdout=subprocess.PIPE, check=True).stdout
    peaks = json.loads(said.splitlines()[-1])
    return peaks["own"], peaks["helper"]
