"""A sender that is slower than the offline restore: its helper tells of each piece that comes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from libxlsr.formats import libxc
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.restoring.image.libxc_restore import LibxcRestore
from libxlsr.source.exact_reader import ExactReader
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.feeding import feed
from libxlsr.testing.parts import IMAGE_HEADER, join

PIECE = 512


def test_progress_within_one_record(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm", pages=4)
    layer = [part for part in stream.parts if part.layer == "libxc"]
    assert layer[0].name == IMAGE_HEADER
    data = join(layer)
    told: list[int] = []

    def progress(counters: Mapping[str, int]) -> None:
        told.append(counters["bytes"])

    def checkpoint(consumed: int) -> tuple[CheckpointReply, int]:
        raise AssertionError("a stream without checkpoints")

    with feed("pieces", data, sizes=[PIECE]) as fd:
        LibxcRestore(ExactReader(fd, 0), tmp_path, progress, checkpoint).run()
    pages = 4 * libxc.PAGE_SIZE
    start = data.index(stream.page(0))
    inside = [count for count in told if start < count < start + pages]
    assert len(inside) >= pages // PIECE - 2
    assert told == sorted(told)
