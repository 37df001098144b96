"""Reads a libxc image: two headers, then records up to END.

What is wrong in one place is told as a Problem, and where the visitor lets it, the walk goes on
behind it as long as the lengths still say where the next record begins: a wrong body does not hide
what follows, a wrong header, an unknown length or the end of the bytes stops everything.

Record lengths, counts and frame numbers are checked before they size anything. A body is held in
memory only up to LARGEST_BODY; pages pass by in pieces. Nothing is read behind END, nor behind a
CHECKPOINT before the walk is told to go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from libxlsr.errors import StreamError
from libxlsr.formats import libxc, page_data, records
from libxlsr.formats.framing import padded_length
from libxlsr.formats.hvm_params import HvmParams
from libxlsr.formats.libxc import PAGE_SIZE, RecordType
from libxlsr.formats.libxc_order import RecordOrder
from libxlsr.formats.libxc_pv import X86PvInfo, X86PvP2mFrames
from libxlsr.formats.libxc_records import RecordBody
from libxlsr.libxc import rules
from libxlsr.libxc.buffered_records import BufferedRecords
from libxlsr.libxc.guest import Guest
from libxlsr.libxc.record_walk import CannotGoOn, RecordWalk
from libxlsr.libxc.visitor import Record, Visitor, Wanted
from libxlsr.source.byte_reader import ByteReader, Truncated

TYPE_CHECKING = False  # as typing has it; verify does without pathlib, too
if TYPE_CHECKING:
    from pathlib import Path

_PAGES = "the pages of PAGE_DATA"
_LAST = (RecordType.CHECKPOINT, RecordType.END)


class Walker(RecordWalk):
    """One walk over the image whose first byte is the next one of ``reader``, telling ``visitor``.

    ``headers()``, then ``section()`` as long as that is CHECKPOINT, with ``go_on()`` in between.
    Each raises what the visitor raises, CannotGoOn behind a problem that there is no way past, and
    TargetError.

    With ``buffer_in``, the records behind a CHECKPOINT are told of when the next one is whole, as
    libxenguest applies them (xg_sr_restore.c): until then they wait in a file in that directory.
    The visitor's ``problem()`` must not return then. Whoever makes such a walk closes it.
    """

    def __init__(
        self, reader: ByteReader, visitor: Visitor, *, buffer_in: Path | None = None
    ) -> None:
        super().__init__("libxc", reader, visitor)
        self._buffer_in = buffer_in
        self._buffer: BufferedRecords | None = None
        self._section = (0, 0)  # its first byte's offset, and the number of records before it
        self._checkpoints = 0
        self.replaying = False
        """Whether records are told of that had to wait. Where that ends in an error, what the
        visitor was told of is a mixture of two states of the guest."""

    def headers(self) -> None:
        """Read both headers."""
        reader = self._reader
        start = reader.offset
        with self._rule("libxc-image-header"):
            data = reader.read(libxc.IMAGE_HEADER_SIZE, "the libxc image header")
            image = libxc.ImageHeader.decode(data, start)
        self._visitor.image_header(image)
        start = reader.offset
        with self._rule("libxc-domain-header"):
            data = reader.read(libxc.DOMAIN_HEADER_SIZE, "the libxc domain header")
            domain = libxc.DomainHeader.decode(data, start)
        self._guest = Guest(image, domain, self._visitor.configured())
        self._visitor.domain_header(self._guest)
        try:
            rules.guest_type(self._guest, start)
        except StreamError as error:
            self._problem("guest-type", error, "libxc domain header")
        self._order = RecordOrder(image.version, domain, checkpointed=True)

    def section(self) -> RecordType:
        """To the next CHECKPOINT or to END, which it was."""
        while True:
            header = self._next_header()
            if self._buffer is not None and header.type not in _LAST:
                self._keep(header, self._buffer)
                continue
            if self._buffer is not None and header.type == RecordType.END:
                # libxenguest drops what came since the last checkpoint even here, where the sender
                # ended in good order; the device model's state that follows END would not fit then.
                self._replay(self._buffer)
            self._take(header)
            if header.type in _LAST:
                return RecordType(header.type)

    def go_on(self) -> None:
        """The checkpoint is whole: libxl's records were read, and the reader stands behind them."""
        self._checkpoints += 1
        if self._buffer is not None:
            self._replay(self._buffer)
        elif self._buffer_in is not None:
            self._buffer = BufferedRecords(self._buffer_in)
        self._section = self._reader.offset, self._number
        self._visitor.checkpoint(self._checkpoints)

    def close(self) -> None:
        """Drop the records that wait."""
        if self._buffer is not None:
            self._buffer.close()
            self._buffer = None

    # -- records

    def _next_header(self) -> libxc.RecordHeader:
        offset = self._begin_record()
        try:
            data = self._reader.read(libxc.RECORD_HEADER_SIZE, "a libxc record or its END")
            header = records.decode_libxc_header(data, offset)
        except StreamError as error:
            self._problem("libxc-record-header", error, *self._coming())
            raise CannotGoOn from None
        self._met(header.type, header.length, offset)
        return header

    def _take(self, header: libxc.RecordHeader) -> None:
        record = self._record
        assert record is not None
        self._visitor.record(record)
        if header.is_optional or not self._check_order(record):
            self._skip(header.padded_length)
        elif header.type == RecordType.PAGE_DATA:
            self._page_data(record)
        elif records.LIBXC[header.type].largest:
            self._body(record)

    def _check_order(self, record: Record) -> bool:
        """False for a record that can't be looked into, out of its place."""
        try:
            self._order.check(record.type, record.offset)
        except StreamError as error:
            is_last = record.type in _LAST
            missing = is_last and self._order.incomplete() is not None
            self._problem("domain-incomplete" if missing else "libxc-order", error)
            self._order.assume(record.type)
            return records.LIBXC[record.type].finding is not None or is_last
        return True

    def _body(self, record: Record) -> None:
        try:
            records.check_libxc_length(record.type, record.length, record.offset + 4)
        except StreamError as error:
            self._problem("record-too-large", error)
            self._skip(padded_length(record.length))
            return
        with self._no_way_past():
            data = self._reader.read(record.length, f"the body of {record.name}")
        self._padding(record, "libxc-padding")
        try:
            body = records.decode_libxc_body(
                record.type, data, record.body_offset, guest_width=self._guest.guest_width
            )
            self._put_together(record, body, data)
        except StreamError as error:
            self._wrong_body(record, records.LIBXC[record.type].finding, error)
            return
        for unknown in rules.vcpu_unknown(self._guest, body, record.offset):
            self._problem("vcpu-unknown", unknown)
        self._visitor.libxc_body(record, body, memoryview(data))

    def _put_together(self, record: Record, body: RecordBody, data: bytes) -> None:
        """Have the guest take what other records add to or depend on. Raises StreamError."""
        guest = self._guest
        if isinstance(body, X86PvInfo):
            guest.guest_width = body.guest_width
        elif isinstance(body, X86PvP2mFrames):
            guest.p2m.add(body, guest.guest_width, record.body_offset)
        elif isinstance(body, HvmParams):
            rules.hvm_params(guest, body, record.offset)
        elif record.type == RecordType.X86_PV_VCPU_BASIC:
            self._order.vcpu_basic(int.from_bytes(data[:4], "little"))

    # -- memory

    def _page_data(self, record: Record) -> None:
        try:
            _prefix, batch = self._frame_list(record)
        except StreamError as error:
            self._wrong_body(record, records.LIBXC[record.type].finding, error)
            if isinstance(error, Truncated):
                raise CannotGoOn from None
            self._skip(record.body_offset + padded_length(record.length) - self._reader.offset)
            return
        try:
            rules.frame_beyond_p2m(self._guest, batch, record.offset)
        except StreamError as error:
            self._problem("frame-beyond-p2m", error)
        self._visitor.page_data(record, batch)
        wanted = self._visitor.wanted(batch)
        if wanted is Wanted.EVERYTHING:
            self._read_pages(batch)
            return
        if wanted is Wanted.PAGE_TABLES and self._guest.is_pv and batch.has_page_tables:
            self._read_page_tables(batch)
        left = record.body_offset + padded_length(record.length) - self._reader.offset
        with self._no_way_past():
            self._reader.skip(left, _PAGES)

    def _frame_list(self, record: Record) -> tuple[bytes, page_data.PageData]:
        """What comes before the pages, as it is and decoded; it fits the record's length."""
        start = record.body_offset
        head = self._reader.read(min(record.length, page_data.HEADER_SIZE), "a PAGE_DATA")
        size = page_data.prefix_length(head, start, record.length) - len(head)
        entries = self._reader.read(size, "the frame list of PAGE_DATA")
        return head + entries, page_data.decode_entries(entries, start, record.length)

    def _read_pages(self, batch: page_data.PageData) -> None:
        """Tell of the contents of a record's frames."""
        pages = self._visitor.pages
        tables = deque(batch.page_tables() if self._guest.is_pv else ())
        pieces = self._reader.pieces(batch.data_pages * PAGE_SIZE, _PAGES)
        piece = memoryview(b"")
        used = first = 0  # bytes of the piece that were told of; the piece's first page
        for first_gfn, number in batch.data_runs():
            gfn, length = first_gfn, number * PAGE_SIZE
            while length:
                if used == len(piece):
                    first += used // PAGE_SIZE
                    with self._no_way_past():
                        piece = memoryview(next(pieces))
                    used = 0
                    if tables:
                        self._check_tables(tables, first, piece)
                count = min(length, len(piece) - used)
                pages(gfn, piece[used : used + count])
                used += count
                length -= count
                gfn += count // PAGE_SIZE

    def _read_page_tables(self, batch: page_data.PageData) -> None:
        """Look at the contents of a record's page tables."""
        tables = deque(batch.page_tables())
        done = 0
        while tables:
            first = tables[0][0]
            number = _consecutive(index for index, _ in tables)
            with self._no_way_past():
                self._reader.skip((first - done) * PAGE_SIZE, _PAGES)
            pieces = self._reader.pieces(number * PAGE_SIZE, _PAGES)
            done = first + number
            while first < done:
                with self._no_way_past():
                    piece = memoryview(next(pieces))
                self._check_tables(tables, first, piece)
                first += len(piece) // PAGE_SIZE

    def _check_tables(self, tables: deque[tuple[int, int]], first: int, pages: memoryview) -> None:
        """Check those of ``tables`` (`PageData.page_tables`) that are among ``pages``, which were
        just read, the record's from number ``first`` on."""
        start = self._reader.offset - len(pages)
        while tables:
            place = (tables[0][0] - first) * PAGE_SIZE
            if place >= len(pages):
                return
            _, gfn = tables.popleft()
            table = pages[place : place + PAGE_SIZE]
            try:
                rules.pte_beyond_p2m(self._guest, table, gfn, start + place)
            except StreamError as error:
                self._problem("pte-beyond-p2m", error)

    # -- checkpoints

    def _keep(self, header: libxc.RecordHeader, buffer: BufferedRecords) -> None:
        """Keep a record, whose header was read, until its checkpoint is whole."""
        record = self._record
        assert record is not None
        self._visitor.buffered(record)
        buffer.write(header.encode())
        left = header.padded_length
        if not header.is_optional:
            with self._rule("record-too-large"):
                records.check_libxc_length(header.type, header.length, record.offset + 4)
        if header.type == RecordType.PAGE_DATA:
            # With a false length it would take the records that follow for its own, up to the
            # stream's end, which would pass for a sender that has died.
            with self._rule("page-data"):
                prefix, _batch = self._frame_list(record)
            buffer.write(prefix)
            left -= len(prefix)
        with self._no_way_past():
            for piece in self._reader.pieces(left, "a libxc record"):
                buffer.write(piece)

    def _replay(self, buffer: BufferedRecords) -> None:
        """Take the records of the section that has ended."""
        live = self._reader, self._record, self._number
        start, self._number = self._section
        self._reader = buffer.reader(start)
        self.replaying = True
        while self._reader.offset < start + buffer.size:
            self._take(self._next_header())
        self.replaying = False
        self._reader, self._record, self._number = live
        buffer.clear()


def _consecutive(numbers: Iterable[int]) -> int:
    """How many of ``numbers``, from the first on, follow each other."""
    expected, count = None, 0
    for number in numbers:
        if expected is not None and number != expected:
            break
        expected, count = number + 1, count + 1
    return count
