"""However large a guest is, what the commands do with its image takes little more memory.

verify's and extract's tests of the same are beside theirs.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.verify.test_memory_is_flat import write_sparse

LIMIT_KIB = 64 << 10
PROGRAM = """
import resource, sys
from libxlsr.cli.main import main
assert main(sys.argv[1:]) == 0
for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
    print(resource.getrusage(who).ru_maxrss)
"""
COMMANDS = {
    "convert": ["convert", "--compact", "image", "output"],
    "inspect": ["inspect", "image"],
    "diff": ["diff", "image", "image"],
    "restore": ["restore", "--target", "image", "image", "--output", "output"],
}


@pytest.mark.slow
@pytest.mark.parametrize("guest", ["pv", "pvh"])
@pytest.mark.parametrize("command", COMMANDS)
def test_from_128_mib_to_8_gib(guest: str, command: str, tmp_path: Path) -> None:
    peaks = []
    for mib in (128, 8192):
        where = tmp_path / f"{mib}"
        where.mkdir()
        write_sparse(where / "image", guest, mib)
        # From a shell, which is small: a process inherits the peak of its parent.
        shell = f'"{sys.executable}" -c "$0" "$@"; exit $?'
        argv = ["sh", "-c", shell, PROGRAM, *COMMANDS[command]]
        said = subprocess.run(argv, cwd=where, capture_output=True, check=True, text=True).stdout
        peaks.append([int(line) for line in said.splitlines()[-2:]])
    for small, large in zip(*peaks):
        assert large - small < 10 << 10  # inspect and diff keep a byte for each frame, and more
        assert large < LIMIT_KIB
