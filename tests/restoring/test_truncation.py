"""The example image, truncated: never success, never a hang, always a StreamError where it ends.

Each case is a whole restore. Reading 11 MB up to the cut 18,000 times would take an hour, so one
`LibxcRestore` goes through the image record by record, and at each record with a cut in it the
restores of that record's cuts go on from a copy of it: their fd is read from that record on.
Everything before libxc's part and after it is read by each of them. A sample goes the whole way
(``test_a_sample_*``), and a smaller one with real helpers.
"""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libxlsr.errors import StreamError
from libxlsr.events import Context
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.formats.records import decode_libxc_header
from libxlsr.restoring.image.exact_fd import ExactReader
from libxlsr.restoring.image.libxc_restore import LibxcRestore
from libxlsr.restoring.image.memory import GuestMemory
from libxlsr.restoring.image.target import ImageTarget
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.target import Target
from libxlsr.testing.in_process import InProcessImageTarget
from libxlsr.testing.parts import XL_OPTIONAL_DATA, Part, split
from libxlsr.testing.stepping import run_until

SHARES = 8
"""Tests that the cases are dealt out to, so that several processes can share them."""


def placed(data: bytes) -> list[tuple[int, Part]]:
    """The parts of the image with their offsets."""
    offset, found = 0, []
    for part in split(data):
        found.append((offset, part))
        offset += part.size
    return found


def required_cuts(data: bytes) -> list[int]:
    """Every offset inside a header, each 8 bytes of the last 64 KiB, 2,000 others."""
    cuts: set[int] = set()
    for offset, part in placed(data):
        is_header = part.type is None and part.name != XL_OPTIONAL_DATA
        cuts.update(range(offset, offset + (part.size if is_header else 8)))
    cuts.update(range(len(data) - 65536, len(data), 8))
    choose = random.Random(2026)
    others = set(cuts)
    while len(others) < len(cuts) + 2000:
        others.add(choose.randrange(len(data)))
    return sorted(cut for cut in others if cut < len(data))


def restore_cut(make: Callable[[Context, Path], Target], fd: int, cut: int, parent: Path) -> None:
    """Restore what ``fd`` holds, ``cut`` bytes, and look at what comes of it and what is left."""
    ctx = Context()
    fds = len(os.listdir("/proc/self/fd"))
    os.lseek(fd, 0, os.SEEK_SET)
    ao = restore_ao(ctx, fd, make(ctx, parent / "guest"), to_eof=True)
    run_until(ctx, lambda: ao.done)
    with pytest.raises(StreamError) as caught:
        ao.result()
    assert caught.value.offset == cut, caught.value
    assert caught.value.exit_code == 1
    assert "the stream ends" in str(caught.value)
    assert caught.value.later == []
    assert ctx.registered() == []
    assert os.listdir(parent) == []
    assert len(os.listdir("/proc/self/fd")) == fds


class _FromRecord(LibxcRestore):
    """Goes on where another one stands, at a record, from ``fd`` and below ``directory``."""

    def __init__(self, other: LibxcRestore, fd: int, directory: Path) -> None:
        vars(self).update({name: copy.copy(value) for name, value in vars(other).items()})
        self._reader = self._stream = ExactReader(fd, other._reader.offset)
        self._memory = GuestMemory(directory)
        self._order = copy.deepcopy(other._order)
        self._state = copy.copy(other._state)
        self._state._order = self._order
        self._state._directory = directory
        os.lseek(fd, self._reader.offset, os.SEEK_SET)

    def run(self) -> dict[str, object]:
        try:
            self._read_records()
        finally:
            self._memory.close()
        raise AssertionError("the cut is not in this record")


class _AtEachRecord(LibxcRestore):
    """Calls ``visit(first, end)`` before each record with the offsets where it begins and ends."""

    visit: Callable[[LibxcRestore, int, int], None]

    def _read_record(self) -> bool:
        start, fd = self._reader.offset, self._reader.fileno()
        header = decode_libxc_header(os.pread(fd, 8, start))
        self.visit(self, start, start + 8 + header.padded_length)
        return super()._read_record()


class _Continuing(InProcessImageTarget):
    """Its libxc part goes on from ``other``; without it, libxc's part is over already."""

    other: LibxcRestore | None = None
    end: tuple[int, dict[str, Any]]

    def run_worker(self, args: dict[str, Any]) -> dict[str, Any]:
        if self.other is None:
            position, result = self.end
            os.lseek(args["fd"], position, os.SEEK_SET)
            return result
        return _FromRecord(self.other, args["fd"], Path(args["directory"])).run()


def no_checkpoint(consumed: int) -> tuple[CheckpointReply, int]:
    raise AssertionError("the example has no checkpoints")


@pytest.mark.parametrize("share", range(SHARES))
def test_every_required_cut(example: bytes, tmp_path: Path, share: int) -> None:
    cuts = required_cuts(example)[share::SHARES][::-1]
    offsets = {part.name: offset for offset, part in placed(example)}
    libxc_start = offsets["libxc image header"]
    parent, whole_dir = tmp_path / "parent", tmp_path / "whole"
    parent.mkdir()
    whole_dir.mkdir()
    whole = os.memfd_create("whole")
    cut_file = os.memfd_create("cut")
    written = 0

    def restore_cuts_before(end: int, make: Callable[[Context, Path], Target]) -> None:
        nonlocal written
        while cuts and cuts[-1] < end:
            cut = cuts.pop()
            os.pwrite(cut_file, example[written:cut], written)
            written = cut
            restore_cut(make, cut_file, cut, parent)

    def visit(at: LibxcRestore, start: int, end: int) -> None:
        def make(ctx: Context, output: Path) -> Target:
            target = _Continuing(ctx, output)
            target.other = at
            return target

        restore_cuts_before(end, make)

    def after_libxc(ctx: Context, output: Path) -> Target:
        target = _Continuing(ctx, output)
        target.end = reader.offset, result
        return target

    try:
        os.write(whole, example)
        os.lseek(whole, libxc_start, os.SEEK_SET)
        restore_cuts_before(libxc_start + 40, InProcessImageTarget)
        reader = ExactReader(whole, libxc_start)
        restore = _AtEachRecord(reader, whole_dir, lambda counters: None, no_checkpoint)
        restore.visit = visit
        result: dict[str, Any] = restore.run()
        restore_cuts_before(len(example), after_libxc)
    finally:
        os.close(whole)
        os.close(cut_file)
    assert cuts == []


def test_the_required_cuts_are_as_many_as_they_should_be(example: bytes) -> None:
    cuts = required_cuts(example)
    parts = placed(example)
    records = sum(part.type is not None for _, part in parts)
    assert records > 1000
    assert len(cuts) > 8 * records + 65536 // 8 + 2000 - 300  # some are inside the last 64 KiB
    assert {0, 47, parts[-1][0], len(example) - 8} <= set(cuts)


def sample(data: bytes, count: int) -> list[int]:
    """Cuts at and around the borders of parts of every kind, and some anywhere."""
    first_of_kind = {part.name: offset for offset, part in placed(data)}
    borders = [offset + step for offset in first_of_kind.values() for step in (-1, 0, 1, 8, 12)]
    choose = random.Random(7)
    cuts = {cut for cut in borders if 0 <= cut < len(data)}
    while len(cuts) < count:
        cuts.add(choose.randrange(len(data)))
    return choose.sample(sorted(cuts), count)


@pytest.mark.parametrize("make", [InProcessImageTarget, ImageTarget], ids=["in process", "helper"])
def test_a_sample_that_goes_the_whole_way(
    example: bytes, tmp_path: Path, make: Callable[[Context, Path], Target]
) -> None:
    fd = os.memfd_create("cut")
    try:
        for cut in sample(example, 80 if make is InProcessImageTarget else 24):
            os.ftruncate(fd, 0)
            os.pwrite(fd, example[:cut], 0)
            restore_cut(make, fd, cut, tmp_path)
    finally:
        os.close(fd)
