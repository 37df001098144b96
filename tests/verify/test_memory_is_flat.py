"""However an image names its frames, verify stays below 128 MiB."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from libxlsr.formats.libxc import RecordType
from libxlsr.formats.page_data import FRAMES_MAX, PageData
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.parts import record_part

LIMIT_KIB = 128 << 10
PROGRAM = """
import resource, sys
from libxlsr.cli.main import main
main(["verify", "--quiet", "--digest", sys.argv[1]])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_kib(path: Path) -> int:
    """Of a process that a small one starts: a process inherits the peak of its parent."""
    shell = f'"{sys.executable}" -c "$0" "$1"'
    command = ["sh", "-c", f"{shell}; exit $?", PROGRAM, str(path)]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


def frames_far_apart(step: int) -> StreamBuilder:
    stream = StreamBuilder("pvh")
    first = stream.find(RecordType.PAGE_DATA)
    for number in range(3):
        start = number * FRAMES_MAX
        batch = PageData.of((gfn * step, 0xF) for gfn in range(start, start + FRAMES_MAX))
        stream.insert_after(first, record_part(RecordType.PAGE_DATA, batch.encode()))
    return stream


def large_p2m() -> StreamBuilder:
    stream = StreamBuilder("pv")
    frames = ((16 << 20) - 8) // 8
    body = struct.pack("<II", 0, frames * 512 - 1) + struct.pack("<Q", 9) * frames
    stream.find(RecordType.X86_PV_P2M_FRAMES).body = body
    return stream


@pytest.mark.parametrize(
    "make",
    [lambda: frames_far_apart(1 << 9), lambda: frames_far_apart(1 << 20), large_p2m],
    ids=["far", "farther", "p2m"],
)
def test_peak(make: object, tmp_path: Path) -> None:
    assert callable(make)
    path = tmp_path / "image"
    path.write_bytes(make().build())
    assert peak_kib(path) < LIMIT_KIB
