"""An extraction takes no more memory for a large guest than for a small one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from libxlsr.formats.libxc import PAGE_SIZE
from tests.tools.verify.test_memory_is_flat import write_sparse

LIMIT_KIB = 64 << 10
PROGRAM = """
import resource, sys
from libxlsr.cli.main import main
assert main(["extract", "--format", *sys.argv[1:]]) == 0
for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
    print(resource.getrusage(who).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("guest", "form"), [("pvh", "elf"), ("pv", "raw")])
def test_from_128_mib_to_8_gib(guest: str, form: str, tmp_path: Path) -> None:
    peaks = []
    image, output = tmp_path / "image", tmp_path / "output"
    for mib in (128, 8192):
        write_sparse(image, guest, mib)
        # From a shell, which is small: a process inherits the peak of its parent.
        shell = f'"{sys.executable}" -c "$0" "$@"; exit $?'
        command = ["sh", "-c", shell, PROGRAM, form, str(image), str(output)]
        said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        peaks.append([int(line) for line in said.splitlines()[-2:]])
        assert output.stat().st_size >= (mib << 20) - PAGE_SIZE
        output.unlink()
        image.unlink()
    for small, large in zip(*peaks):
        assert large - small < 4 << 10
        assert large < LIMIT_KIB
