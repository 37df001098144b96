"""However an image names its frames, verify stays below 128 MiB; what a guest's size adds is its
frames' types, a byte each."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from libxlsr.formats.framing import RECORD_HEADER
from libxlsr.formats.libxc import PAGE_SIZE, RecordType
from libxlsr.formats.page_data import FRAMES_MAX, PageData
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.pages import PageBatch
from libxlsr.testing.parts import record_part

LIMIT_KIB = 128 << 10
PROGRAM = """
import resource, sys
from libxlsr.cli.main import main
main(["verify", "--quiet", *sys.argv[1:]])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_kib(path: Path, *options: str) -> int:
    """Of a process that a small one starts: a process inherits the peak of its parent."""
    shell = f'"{sys.executable}" -c "$0" "$@"'
    command = ["sh", "-c", f"{shell}; exit $?", PROGRAM, *options, str(path)]
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
    assert peak_kib(path, "--digest") < LIMIT_KIB


def write_sparse(path: Path, guest: str, mib: int) -> None:
    """An image of ``mib`` of memory all of whose pages are holes of the file."""
    stream = StreamBuilder(guest, pages=(mib << 20) // PAGE_SIZE)
    with path.open("wb") as file:
        for part in stream.parts:
            if isinstance(part.body, PageBatch):
                prefix = part.body.prefix()
                pages = PAGE_SIZE * len(part.body.frames)  # the lengths are multiples of 8
                file.write(RECORD_HEADER.pack(part.type, len(prefix) + pages) + prefix)
                file.seek(pages, 1)
            else:
                file.writelines(part.chunks())


@pytest.mark.parametrize(
    ("guest", "options"),
    [
        ("pvh", []),
        pytest.param("pv", [], marks=pytest.mark.slow),
        pytest.param("pv", ["--full"], marks=pytest.mark.slow),
        pytest.param("pvh", ["--digest"], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_from_128_mib_to_8_gib(guest: str, options: list[str], tmp_path: Path) -> None:
    peaks = []
    for mib in (128, 8192):
        path = tmp_path / f"{mib}"
        write_sparse(path, guest, mib)
        peaks.append(peak_kib(path, *options))
        path.unlink()
    assert peaks[1] - peaks[0] < 8 << 10
    assert peaks[1] < LIMIT_KIB // 2
