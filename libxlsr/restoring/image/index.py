"""Where the contents of each guest frame lie, and every record as it was sent.

What ``extract`` and ``convert`` work from: an offline restore that leaves the pages where they are,
in the image, and notes their places. Beside the files of an offline restore (``layout``) there are:

=====================  ===========================================================================
``locations``          a u64 little-endian a frame: the place of its contents in the image file;
                       with IN_MEMORY set, the place in ``memory``, for contents that lie in no
                       file (a pipe, compressed data, a checkpoint kept aside); 0, or nothing where
                       the file ends before, for a frame without contents, which ``memory`` has as
                       zeros if it was named with a type that has some (by a verify pass)
``records``            libxc's records but for PAGE_DATA, as they were applied, whole
``libxl_header``       the header of the libxl stream, absent for a bare libxc stream
``emulator/*.record``  the bodies of the emulator records
=====================  ===========================================================================
"""

from __future__ import annotations

import os
import stat
import sys
from array import array
from pathlib import Path

from libxlsr.files import pwrite_all, write_all
from libxlsr.formats import libxl
from libxlsr.formats.framing import Buffer, encode_record
from libxlsr.formats.libxc import PAGE_SIZE, RecordType
from libxlsr.formats.libxc_order import RecordOrder
from libxlsr.formats.page_data import PageData
from libxlsr.formats.pv_page_table import check_table
from libxlsr.restoring.image.exact_fd import ExactReader, end_of_stream
from libxlsr.restoring.image.libxc_restore import (
    Checkpoint,
    ConfiguredDomain,
    LibxcRestore,
    Progress,
)
from libxlsr.restoring.image.state_files import StateFiles

LOCATIONS = "locations"
RECORDS = "records"
LIBXL_HEADER = "libxl_header"
LIBXL_RECORDS = {
    libxl.RecordType.EMULATOR_XENSTORE_DATA: "emulator/xenstore.record",
    libxl.RecordType.EMULATOR_CONTEXT: "emulator/context.record",
}
"""The files of the libxl records that have a body, in the order of a stream."""

IN_MEMORY = 1 << 63
LOCATION_SIZE = 8

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class IndexingRestore(LibxcRestore):
    """A LibxcRestore that skips what it can and notes where it was."""

    def __init__(
        self,
        reader: ExactReader,
        directory: Path,
        progress: Progress,
        checkpoint: Checkpoint,
        domain: ConfiguredDomain | None = None,
    ) -> None:
        super().__init__(reader, directory, progress, checkpoint, domain)
        status = os.fstat(reader.fileno())
        self._in_place = stat.S_ISREG(status.st_mode)
        self._size = status.st_size
        self._locations = os.open(directory / LOCATIONS, _FLAGS, 0o600)

    def _make_state(self, order: RecordOrder) -> StateFiles:
        return _KeptRecords(self._directory, order, self._max_vcpus)

    def _take_pages(self, batch: PageData) -> None:
        if self._in_place and self._stream is self._reader:
            position = os.lseek(self._reader.fileno(), 0, os.SEEK_CUR)
            self._skip_pages(position, batch.data_pages * PAGE_SIZE)
            self._check_tables_at(position, batch)
            if self._verifying:
                ends = (first_gfn + number for first_gfn, number in batch.data_runs())
                self._memory.reach(max(ends, default=0))
                return
            for first_gfn, number in batch.data_runs():
                self._note(first_gfn, number, position)
                position += number * PAGE_SIZE
        else:
            super()._take_pages(batch)
            if self._verifying:
                return
            for first_gfn, number in batch.data_runs():
                self._note(first_gfn, number, IN_MEMORY | first_gfn * PAGE_SIZE)

    def _verify_pages(self, first_gfn: int, pages: memoryview) -> None:
        """There is nothing to compare with: what was sent before may be anywhere. But these frames
        have contents, if only zeros."""
        self._memory.reach(first_gfn + len(pages) // PAGE_SIZE)

    def _check_tables_at(self, position: int, batch: PageData) -> None:
        for index, gfn in batch.page_tables() if self._is_pv else ():
            place = position + index * PAGE_SIZE
            table = os.pread(self._reader.fileno(), PAGE_SIZE, place).ljust(PAGE_SIZE, b"\0")
            offset = self._reader.offset - (batch.data_pages - index) * PAGE_SIZE
            check_table(table, gfn, self._state.p2m_covered, offset)

    def _skip_pages(self, position: int, nbytes: int) -> None:
        left = max(self._size - position, 0)
        if nbytes > left:
            raise end_of_stream(
                self._reader.offset + left, f"{left} bytes into the pages of PAGE_DATA"
            )
        os.lseek(self._reader.fileno(), nbytes, os.SEEK_CUR)
        self._reader.offset += nbytes

    def _note(self, first_gfn: int, number: int, location: int) -> None:
        locations = array("Q", range(location, location + number * PAGE_SIZE, PAGE_SIZE))
        if sys.byteorder == "big":  # pragma: no cover - no such machine here
            locations.byteswap()
        pwrite_all(self._locations, locations.tobytes(), first_gfn * LOCATION_SIZE)


class _KeptRecords(StateFiles):
    """Stores each record twice: decoded, and as it was."""

    def __init__(self, directory: Path, order: RecordOrder, max_vcpus: int | None) -> None:
        super().__init__(directory, order, max_vcpus)
        self._records = os.open(directory / RECORDS, _FLAGS, 0o600)

    def store(self, record_type: RecordType, data: Buffer, offset: int) -> None:
        super().store(record_type, data, offset)
        write_all(self._records, encode_record(record_type, data))
