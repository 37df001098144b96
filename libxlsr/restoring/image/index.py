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
from libxlsr.formats.framing import encode_record
from libxlsr.formats.libxc import PAGE_SIZE, RecordType
from libxlsr.formats.libxc_records import RecordBody
from libxlsr.formats.page_data import PageData
from libxlsr.libxc.guest import ConfiguredGuest
from libxlsr.libxc.visitor import Record, Wanted
from libxlsr.restoring.image.libxc_restore import Checkpoint, LibxcRestore, Progress
from libxlsr.source.exact_reader import ExactReader

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
        configured: ConfiguredGuest | None = None,
    ) -> None:
        super().__init__(reader, directory, progress, checkpoint, configured)
        self._is_file = stat.S_ISREG(os.fstat(reader.fileno()).st_mode)
        self._locations = os.open(directory / LOCATIONS, _FLAGS, 0o600)
        self._kept_records = os.open(directory / RECORDS, _FLAGS, 0o600)

    def record(self, record: Record) -> None:
        super().record(record)
        if record.type == RecordType.STATIC_DATA_END:
            self._keep(record, b"")

    def libxc_body(self, record: Record, body: RecordBody, data: memoryview) -> None:
        super().libxc_body(record, body, data)
        self._keep(record, data)

    def page_data(self, record: Record, batch: PageData) -> None:
        super().page_data(record, batch)
        runs = list(batch.data_runs())
        if self._verifying:
            # There is nothing to compare with: what was sent before may be anywhere. But these
            # frames have contents, if only zeros.
            self._memory.reach(max((first + number for first, number in runs), default=0))
            return
        if not self._in_place:
            for first_gfn, number in runs:
                self._note(first_gfn, number, IN_MEMORY | first_gfn * PAGE_SIZE)
            return
        # The pages come next.
        position = os.lseek(self._reader.fileno(), 0, os.SEEK_CUR)
        for first_gfn, number in runs:
            self._note(first_gfn, number, position)
            position += number * PAGE_SIZE

    def wanted(self, batch: PageData) -> Wanted:
        return Wanted.PAGE_TABLES if self._in_place else Wanted.EVERYTHING

    def pages(self, first_gfn: int, data: bytes | memoryview) -> None:
        if not self._verifying:
            super().pages(first_gfn, data)

    @property
    def _in_place(self) -> bool:
        """Whether contents are where the fd stands, and stay there."""
        return self._is_file and not self._walker.replaying

    def _note(self, first_gfn: int, number: int, location: int) -> None:
        locations = array("Q", range(location, location + number * PAGE_SIZE, PAGE_SIZE))
        if sys.byteorder == "big":  # pragma: no cover - no such machine here
            locations.byteswap()
        pwrite_all(self._locations, locations.tobytes(), first_gfn * LOCATION_SIZE)

    def _keep(self, record: Record, data: bytes | memoryview) -> None:
        write_all(self._kept_records, encode_record(record.type, data))
