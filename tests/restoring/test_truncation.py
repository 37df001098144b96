"""The example image, truncated: never success, never a hang, always a StreamError where it ends.

It is cut inside every header, at each 8 bytes of its last 64 KiB and at 2,000 other places: 18,000
cuts. Every run has the readers meet each of them (``test_the_readers_*``), and restores whole at
those where something else begins and at each 60th (``test_a_restore_*``); ``-m slow`` restores at
all of them. Reading 11 MB up to each cut would take an hour, so one `LibxcRestore` goes through the
image record by record, and at each record with a cut in it that record's cuts go on from a copy of
it. A sample goes the whole way (``test_a_sample_*``), and a smaller one with real helpers.
"""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from libxlsr.errors import LibxlsrError, StreamError
from libxlsr.events import Context
from libxlsr.formats import libxc
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.formats.records import decode_libxc_header
from libxlsr.libxc.walker import Walker
from libxlsr.restoring.image.libxc_restore import LibxcRestore
from libxlsr.restoring.image.memory import GuestMemory
from libxlsr.restoring.image.target import ImageTarget
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.target import Target
from libxlsr.source.exact_reader import ExactReader
from libxlsr.testing.in_process import InProcessImageTarget
from libxlsr.testing.libxl_records import T
from libxlsr.testing.parts import LIBXL_HEADER, XL_OPTIONAL_DATA, Part, split
from libxlsr.testing.reader_stepper import ReaderStepper
from libxlsr.testing.stepping import run_until

SHARES = 8
"""Tests that the cases are dealt out to, so that several processes can share them."""
EACH = 60
"""Of so many required cuts, every run restores one, wherever it is."""


def placed(data: bytes) -> list[tuple[int, Part]]:
    """The parts of the image with their offsets."""
    offset, found = 0, []
    for part in split(data):
        found.append((offset, part))
        offset += part.size
    return found


def header_size(part: Part) -> int:
    """How much of the part says what it is, and how long."""
    is_header = part.type is None and part.name != XL_OPTIONAL_DATA
    return part.size if is_header else 8


def required_cuts(data: bytes) -> list[int]:
    """Every offset inside a header, each 8 bytes of the last 64 KiB, 2,000 others."""
    cuts: set[int] = set()
    for offset, part in placed(data):
        cuts.update(range(offset, offset + header_size(part)))
    cuts.update(range(len(data) - 65536, len(data), 8))
    choose = random.Random(2026)
    others = set(cuts)
    while len(others) < len(cuts) + 2000:
        others.add(choose.randrange(len(data)))
    return sorted(cut for cut in others if cut < len(data))


def structural_cuts(data: bytes) -> list[int]:
    """In the first and the last part of each kind: every offset inside its header, the middle and
    the last byte of its body; and each 60th of the required cuts."""
    parts = placed(data)
    first = {(part.layer, part.name): (offset, part) for offset, part in reversed(parts)}
    last = {(part.layer, part.name): (offset, part) for offset, part in parts}
    cuts = set(required_cuts(data)[::EACH])
    for offset, part in (*first.values(), *last.values()):
        cuts.update(range(offset, offset + header_size(part)))
        cuts.update((offset + part.size // 2, offset + part.size - 1))
    return sorted(cuts)


def check_error(error: LibxlsrError | None, cut: int) -> None:
    """It says that the stream ends, and where."""
    assert isinstance(error, StreamError)
    assert error.offset == cut, error
    assert error.exit_code == 1
    assert "the stream ends" in str(error)
    assert error.later == []


def restore_cut(make: Callable[[Context, Path], Target], fd: int, cut: int, parent: Path) -> None:
    """Restore what ``fd`` holds, ``cut`` bytes, and look at what comes of it and what is left."""
    ctx = Context()
    fds = len(os.listdir("/proc/self/fd"))
    os.lseek(fd, 0, os.SEEK_SET)
    ao = restore_ao(ctx, fd, RestoreOptions(to_eof=True), target=make(ctx, parent / "guest"))
    run_until(ctx, lambda: ao.done)
    with pytest.raises(StreamError) as caught:
        ao.result()
    check_error(caught.value, cut)
    assert ctx.registered() == []
    assert os.listdir(parent) == []
    assert len(os.listdir("/proc/self/fd")) == fds


class _FromRecord(LibxcRestore):
    """Goes on where another one stands, at a record, from ``fd``."""

    def __init__(self, other: LibxcRestore, fd: int) -> None:
        vars(self).update({name: copy.copy(value) for name, value in vars(other).items()})
        self._reader = ExactReader(fd, other._reader.offset)
        vars(self._walker).pop("before_record", None)  # it visits nothing
        self._walker._reader, self._walker._visitor = self._reader, self
        self._walker._order = copy.deepcopy(other._walker._order)
        self._guest = self._walker._guest = copy.deepcopy(other._guest)
        os.lseek(fd, self._reader.offset, os.SEEK_SET)

    def run_below(self, directory: Path) -> None:
        """Restore into files of its own."""
        self._memory = GuestMemory(directory)
        self._state._directory = directory
        try:
            self.run_to_cut()
        finally:
            self._memory.close()

    def run_to_cut(self) -> None:
        """Read on, into the files of the other one: what it reads next is the same."""
        self._walker.section()
        raise AssertionError("the cut is not in this record")


class _AtEachRecord(LibxcRestore):
    """Calls ``visit(self, end)`` before each record with the offset where it ends."""

    visit: Callable[[LibxcRestore, int], None]

    def run(self) -> dict[str, object]:
        self._walker = _SteppedWalker(self._reader, self)
        self._walker.before_record = self._before_record
        return super().run()

    def _before_record(self) -> None:
        start, fd = self._reader.offset, self._reader.fileno()
        header = decode_libxc_header(os.pread(fd, 8, start))
        self.visit(self, start + 8 + header.padded_length)


class _SteppedWalker(Walker):
    """Calls ``before_record`` before each record."""

    before_record: Callable[[], None] = staticmethod(lambda: None)

    def _next_header(self) -> libxc.RecordHeader:
        self.before_record()
        return super()._next_header()


class _Continuing(InProcessImageTarget):
    """Its libxc part goes on from ``other``; without it, libxc's part is over already."""

    other: LibxcRestore | None = None
    end: tuple[int, dict[str, Any]]

    def run_worker(self, args: dict[str, Any]) -> dict[str, Any]:
        if self.other is not None:
            _FromRecord(self.other, args["fd"]).run_below(Path(args["directory"]))
        position, result = self.end
        os.lseek(args["fd"], position, os.SEEK_SET)
        return result


class AtCuts:
    """Goes through ``image`` once; at each of the ``cuts``, has it met from where it stands."""

    def __init__(self, image: bytes, cuts: list[int], directory: Path) -> None:
        self._image = image
        self._cuts = cuts[::-1]
        self._parent = directory / "parent"
        self._whole = directory / "whole"
        offsets = {part.name: offset for offset, part in placed(image)}
        self._libxl_start = offsets[LIBXL_HEADER]
        self._libxc_start = offsets["libxc image header"]
        self._written = 0

    def restore(self) -> None:
        """Restore at each cut, whole."""

        def in_libxc(at: LibxcRestore, cut: int) -> None:
            def make(ctx: Context, output: Path) -> Target:
                target = _Continuing(ctx, output)
                target.other = at
                return target

            self._restore(make, cut)

        def after_libxc(end: int, result: dict[str, Any], cut: int) -> None:
            def make(ctx: Context, output: Path) -> Target:
                target = _Continuing(ctx, output)
                target.end = end, result
                return target

            self._restore(make, cut)

        self._go(in_libxc, after_libxc)

    def read(self) -> None:
        """Have the reader whose part of the image it is meet each cut."""

        def in_libxc(at: LibxcRestore, cut: int) -> None:
            with pytest.raises(StreamError) as caught:
                _FromRecord(at, self._fd).run_to_cut()
            check_error(caught.value, cut)

        head = self._image[self._libxl_start : self._libxc_start]

        def after_libxc(end: int, result: dict[str, Any], cut: int) -> None:
            stepper = ReaderStepper(
                head + self._image[end:cut], offset=self._libxl_start, later=[T.LIBXC_CONTEXT]
            )
            stepper.start()
            stepper.run()
            stepper.reader.advance(end - self._libxc_start)  # libxc has read its part
            stepper.handler.finish()
            stepper.run()
            check_error(stepper.error, cut)
            assert stepper.ctx.registered() == []

        self._go(in_libxc, after_libxc)

    def _restore(self, make: Callable[[Context, Path], Target], cut: int) -> None:
        restore_cut(make, self._fd, cut, self._parent)

    def _go(
        self,
        in_libxc: Callable[[LibxcRestore, int], None],
        after_libxc: Callable[[int, dict[str, Any], int], None],
    ) -> None:
        self._parent.mkdir()
        self._whole.mkdir()
        whole = os.memfd_create("whole")
        self._fd = os.memfd_create("cut")
        try:
            os.write(whole, self._image)
            os.lseek(whole, self._libxc_start, os.SEEK_SET)
            for cut in self._cuts_before(self._libxc_start + 40):
                self._restore(InProcessImageTarget, cut)

            def visit(at: LibxcRestore, end: int) -> None:
                for cut in self._cuts_before(end):
                    in_libxc(at, cut)

            reader = ExactReader(whole, self._libxc_start)
            restore = _AtEachRecord(reader, self._whole, lambda counters: None, no_checkpoint)
            restore.visit = visit
            result: dict[str, Any] = restore.run()
            for cut in self._cuts_before(len(self._image)):
                after_libxc(reader.offset, result, cut)
        finally:
            os.close(whole)
            os.close(self._fd)
        assert self._cuts == []

    def _cuts_before(self, end: int) -> Iterator[int]:
        """Each of the cuts that are left before ``end``; the file of the cut image ends there."""
        while self._cuts and self._cuts[-1] < end:
            cut = self._cuts.pop()
            os.pwrite(self._fd, self._image[self._written : cut], self._written)
            self._written = cut
            yield cut


def no_checkpoint(consumed: int) -> tuple[CheckpointReply, int]:
    raise AssertionError("the example has no checkpoints")


def test_the_readers_at_every_required_cut(example: bytes, tmp_path: Path) -> None:
    AtCuts(example, required_cuts(example), tmp_path).read()


def test_a_restore_at_every_structural_cut(example: bytes, tmp_path: Path) -> None:
    AtCuts(example, structural_cuts(example), tmp_path).restore()


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_a_restore_at_every_required_cut(example: bytes, tmp_path: Path, share: int) -> None:
    AtCuts(example, required_cuts(example)[share::SHARES], tmp_path).restore()


def test_the_required_cuts_are_as_many_as_they_should_be(example: bytes) -> None:
    cuts = required_cuts(example)
    parts = placed(example)
    records = sum(part.type is not None for _, part in parts)
    assert records > 1000
    assert len(cuts) > 8 * records + 65536 // 8 + 2000 - 300  # some are inside the last 64 KiB
    assert {0, 47, parts[-1][0], len(example) - 8} <= set(cuts)
    assert {0, 47, parts[-1][0], len(example) - 1} <= set(structural_cuts(example))


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
        for cut in sample(example, 24 if make is InProcessImageTarget else 12):
            os.ftruncate(fd, 0)
            os.pwrite(fd, example[:cut], 0)
            restore_cut(make, fd, cut, tmp_path)
    finally:
        os.close(fd)
