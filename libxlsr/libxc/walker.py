"""The grammar of an image, from xl's header to the byte after END.

::

    [xl header, configuration]  libxl header  libxl record...
    LIBXC_CONTEXT               image header  domain header  libxc record...
    CHECKPOINT                  libxl records up to CHECKPOINT_END, then libxc records again
    libxc END                   libxl records up to END

An image of Xen 4.5 or older is converted on the way, and what it becomes is walked over.

What is wrong in one place is told as a Problem, and the walk goes on behind it as long as the
lengths still say where the next record begins: a wrong body does not hide what follows, a wrong
header, an unknown length or the end of the bytes stops everything.

Record lengths, counts and frame numbers are checked before they size anything. A body is held in
memory only up to LARGEST_BODY; pages and the device model's state pass by in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache

from libxlsr.errors import StreamError
from libxlsr.formats import libxc, libxl, page_data, records, xl
from libxlsr.formats.framing import padded_length
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_order import RecordOrder as LibxcOrder
from libxlsr.formats.libxc_pv import X86PvInfo
from libxlsr.formats.libxl_order import RecordOrder as LibxlOrder
from libxlsr.formats.recognise import SIZE as RECOGNISE_SIZE
from libxlsr.formats.recognise import recognise
from libxlsr.libxc.visitor import Problem, Record, Visitor
from libxlsr.source.byte_source import Source, Truncated

_END = 1
_CHECKPOINT_END = 2
_PAGES = "the pages of PAGE_DATA"


class _Stop(Exception):
    """The walk can't go on; the problem has been told."""


class Walker:
    """One walk over ``source``, telling ``visitor``."""

    def __init__(self, source: Source, visitor: Visitor) -> None:
        self._source = source
        self._visitor = visitor
        self._numbers = {"libxl": 0, "libxc": 0}
        self._libxl_order = LibxlOrder()
        self._libxc_order: LibxcOrder | None = None
        self._nested = False
        self._guest_width = 8
        self._checkpoints = 0
        self._record: Record | None = None
        self._converting = False

    def run(self, kind: str) -> None:
        """Walk over an image of ``kind`` ("xl", "libxl", "libxc", "legacy"). Raises TargetError."""
        whole = False
        try:
            if kind == "legacy":
                self._legacy()
            elif kind == "libxc":
                self._libxc_headers()
                self._libxc_records()
            else:
                if kind == "xl":
                    self._xl()
                self._libxl()
            self._record = None
            with self._rule("trailing-data", where="the image's end"):
                self._nothing_follows()
            whole = True
        except _Stop:
            pass
        self._visitor.ended(whole=whole, offset=self._source.offset)

    # -- problems

    def _problem(
        self,
        rule: str,
        error: StreamError,
        where: str | None = None,
        number: int | None = None,
    ) -> None:
        """``where`` and ``number`` are of what is read while there is no record."""
        if isinstance(error, Truncated):
            rule = error.rule
        if self._converting and isinstance(error, Truncated):
            number = None  # it says itself where it is in the old image
        elif self._record is not None:
            error.record, number = str(self._record), self._record.number
        elif error.record is None:
            error.record = where
        self._visitor.problem(Problem(rule, error, number))

    @contextmanager
    def _rule(
        self, rule: str, where: str | None = None, number: int | None = None
    ) -> Iterator[None]:
        """What goes wrong within breaks ``rule``, and there is no way past it."""
        try:
            yield
        except StreamError as error:
            self._problem(rule, error, where, number)
            raise _Stop from None

    def _no_way_past(self) -> AbstractContextManager[None]:
        """What is read within has no rule of its own to break: the bytes can end there."""
        return self._rule(Truncated.rule)

    def _nothing_follows(self) -> None:
        if not self._source.at_end():
            raise StreamError(
                "something follows the end of the image",
                offset=self._source.offset,
                expected="the end of the file",
            )

    # -- xl

    def _legacy(self) -> None:
        """xl's header, where there is one, and the libxl stream that the rest becomes."""
        from libxlsr.libxc.conversion import converted

        source = self._source
        if recognise(source.peek(RECOGNISE_SIZE)) == "xl":
            self._xl(legacy=True)
        self._source, self._converting = converted(source), True
        self._libxl()
        self._source, self._converting = source, False

    def _xl(self, *, legacy: bool = False) -> None:
        source = self._source
        with self._rule("xl-header"):
            data = source.read(xl.FIXED_HEADER_SIZE, "the xl header")
            header = xl.Header.decode(data, legacy=legacy)
            self._visitor.xl_header(header)
        start = source.offset
        with self._rule("xl-config", "xl optional data"):
            data = source.read(header.optional_data_len, "the domain configuration")
        if not header.has_json:
            return
        try:
            self._visitor.optional_data(xl.OptionalData.decode(data, start))
        except StreamError as error:
            self._problem("xl-config", error)

    # -- libxl

    def _libxl(self) -> None:
        source = self._source
        start = source.offset
        with self._rule("libxl-header"):
            data = source.read(libxl.HEADER_SIZE, "the libxl header")
            self._visitor.libxl_header(libxl.Header.decode(data, start))
        self._nested = True
        while self._libxl_record() != _END:
            pass

    def _libxl_record(self) -> int | None:
        """Past one record; its type if it is one that ends a section: END, CHECKPOINT_END."""
        header = self._next_libxl_header()
        record = self._record
        assert record is not None
        if header.is_optional:
            self._skip(header.padded_length)
            return None
        self._check_libxl_order(libxl.RecordType(header.type))
        if header.type == libxl.RecordType.LIBXC_CONTEXT:
            self._libxc_headers()
            self._libxc_records()
        elif header.type == libxl.RecordType.EMULATOR_CONTEXT:
            self._emulator_context(record)
        elif records.LIBXL[header.type].decode is not None:
            self._libxl_body(record)
        if header.type == libxl.RecordType.END:
            return _END
        return _CHECKPOINT_END if header.type == libxl.RecordType.CHECKPOINT_END else None

    def _next_libxl_header(self) -> libxl.RecordHeader:
        offset = self._begin_record()
        with self._rule("libxl-record-header", *self._coming("libxl")):
            data = self._source.read(libxl.RECORD_HEADER_SIZE, "a libxl record or its END")
            header = records.decode_libxl_header(data, offset)
        self._met("libxl", header.type, header.length, offset)
        return header

    def _check_libxl_order(self, record_type: libxl.RecordType) -> None:
        record = self._record
        assert record is not None
        try:
            self._libxl_order.check(record_type, record.offset)
        except StreamError as error:
            self._problem("libxl-order", error)
            if record_type is libxl.RecordType.LIBXC_CONTEXT:
                raise _Stop from None

    def _emulator_context(self, record: Record) -> None:
        size = record.length - libxl.EMULATOR_HEADER_SIZE
        head_size = min(record.length, libxl.EMULATOR_HEADER_SIZE)
        with self._no_way_past():
            data = self._source.read(head_size, "an EMULATOR_CONTEXT")
        try:
            head = libxl.EmulatorContext.decode(data, record.body_offset)
        except StreamError as error:
            self._wrong_body(record, records.LIBXL[record.type].finding, error)
            self._skip(padded_length(record.length) - head_size)
            return
        self._visitor.emulator_context(record, head, size)
        with self._no_way_past():
            if self._visitor.wants_emulator_state():
                for piece in self._source.pieces(size, "the device model's state"):
                    self._visitor.emulator_state(piece)
            else:
                self._source.skip(size, "the device model's state")
        self._padding(record, "libxl-padding")

    def _libxl_body(self, record: Record) -> None:
        with self._no_way_past():
            data = self._source.read(record.length, f"the body of {record.name}")
        self._padding(record, "libxl-padding")
        row = records.LIBXL[record.type]
        assert row.decode is not None  # the header would not have been taken otherwise
        try:
            body = row.decode(data, record.body_offset)
        except StreamError as error:
            self._wrong_body(record, row.finding, error)
        else:
            self._visitor.libxl_body(record, body)

    def _wrong_body(self, record: Record, finding: str | None, error: StreamError) -> None:
        assert finding is not None, f"the row of {record.name} names no finding"
        self._problem(finding, error)

    # -- libxc

    def _libxc_headers(self) -> None:
        source = self._source
        self._record = None
        start = source.offset
        with self._rule("libxc-image-header"):
            data = source.read(libxc.IMAGE_HEADER_SIZE, "the libxc image header")
            image = libxc.ImageHeader.decode(data, start)
            self._visitor.image_header(image)
        start = source.offset
        with self._rule("libxc-domain-header"):
            data = source.read(libxc.DOMAIN_HEADER_SIZE, "the libxc domain header")
            domain = libxc.DomainHeader.decode(data, start)
            self._visitor.domain_header(domain)
        self._libxc_order = LibxcOrder(image.version, domain, checkpointed=True)

    def _libxc_records(self) -> None:
        """To libxc's END, through all checkpoints."""
        record_type = -1
        while record_type != RecordType.END:
            record_type = self._libxc_record()

    def _libxc_record(self) -> int:
        """Past one record; its type."""
        header = self._next_libxc_header()
        record = self._record
        assert record is not None
        if header.is_optional or not self._check_libxc_order(record):
            self._skip(header.padded_length)
        elif header.type == RecordType.CHECKPOINT:
            self._checkpoint()
        elif header.type == RecordType.PAGE_DATA:
            self._page_data(record)
        elif records.LIBXC[header.type].largest:
            self._libxc_body(record)
        return header.type

    def _next_libxc_header(self) -> libxc.RecordHeader:
        offset = self._begin_record()
        try:
            data = self._source.read(libxc.RECORD_HEADER_SIZE, "a libxc record or its END")
            header = records.decode_libxc_header(data, offset)
        except StreamError as error:
            self._problem("libxc-record-header", error, *self._coming("libxc"))
            raise _Stop from None
        self._met("libxc", header.type, header.length, offset)
        return header

    def _check_libxc_order(self, record: Record) -> bool:
        """False for a record that can't be looked into, out of its place."""
        assert self._libxc_order is not None
        try:
            self._libxc_order.check(record.type, record.offset)
        except StreamError as error:
            is_last = record.type in (RecordType.END, RecordType.CHECKPOINT)
            missing = is_last and self._libxc_order.incomplete() is not None
            self._problem("domain-incomplete" if missing else "libxc-order", error)
            self._libxc_order.assume(record.type)
            return records.LIBXC[record.type].finding is not None or is_last
        return True

    def _checkpoint(self) -> None:
        if self._nested:
            self._libxl_order.start_checkpoint()
            ended = None
            while not ended:
                ended = self._libxl_record()
            if ended == _END:  # told as a problem of the order; there is nothing to go on with
                raise _Stop
        self._checkpoints += 1
        self._visitor.checkpoint(self._checkpoints)

    def _libxc_body(self, record: Record) -> None:
        try:
            records.check_libxc_length(record.type, record.length, record.offset + 4)
        except StreamError as error:
            self._problem("record-too-large", error)
            self._skip(padded_length(record.length))
            return
        with self._no_way_past():
            data = self._source.read(record.length, f"the body of {record.name}")
        self._padding(record, "libxc-padding")
        try:
            body = records.decode_libxc_body(
                record.type, data, record.body_offset, guest_width=self._guest_width
            )
        except StreamError as error:
            self._wrong_body(record, records.LIBXC[record.type].finding, error)
            return
        if isinstance(body, X86PvInfo):
            self._guest_width = body.guest_width
        elif record.type == RecordType.X86_PV_VCPU_BASIC:
            assert self._libxc_order is not None
            self._libxc_order.vcpu_basic(int.from_bytes(data[:4], "little"))
        self._visitor.libxc_body(record, body, memoryview(data))

    def _page_data(self, record: Record) -> None:
        source = self._source
        end = record.body_offset + padded_length(record.length)
        start = record.body_offset
        try:
            head = source.read(min(record.length, page_data.HEADER_SIZE), "a PAGE_DATA")
            prefix = page_data.prefix_length(head, start, record.length)
            entries = source.read(prefix - len(head), "the frame list of PAGE_DATA")
            batch = page_data.decode_entries(entries, start, record.length)
        except StreamError as error:
            self._wrong_body(record, records.LIBXC[record.type].finding, error)
            if isinstance(error, Truncated):
                raise _Stop from None
            self._skip(end - source.offset)
            return
        self._visitor.page_data(record, batch)
        try:
            wanted = self._visitor.wanted_pages(batch)
            if wanted:
                self._pages(batch, wanted)
            else:
                source.skip(end - source.offset, _PAGES)
        except StreamError as error:
            self._problem(Truncated.rule, error)
            raise _Stop from None

    def _pages(self, batch: page_data.PageData, wanted: bytes) -> None:
        """Past the contents of a record's frames, telling those of the ``wanted`` types."""
        gfns, types = batch.with_data()
        marks = types.translate(_one_for(wanted))
        count, end = len(marks), 0
        while end < count:
            begin = marks.find(1, end)
            begin = count if begin < 0 else begin
            self._source.skip((begin - end) * libxc.PAGE_SIZE, _PAGES)
            end = marks.find(0, begin)
            end = count if end < 0 else end
            self._tell_pages(gfns[begin:end], types[begin:end])

    def _tell_pages(self, gfns: Sequence[int], types: bytes) -> None:
        """Tell of the frames whose contents come next."""
        begin = 0
        for piece in self._source.pieces(len(gfns) * libxc.PAGE_SIZE, _PAGES):
            first, last = begin, begin + len(piece) // libxc.PAGE_SIZE
            while begin < last:
                end = begin + 1
                while (
                    end < last
                    and types[end] == types[begin]
                    and gfns[end] == gfns[begin] + end - begin
                ):
                    end += 1
                data = piece[(begin - first) * libxc.PAGE_SIZE : (end - first) * libxc.PAGE_SIZE]
                self._visitor.pages(gfns[begin], types[begin], data)
                begin = end

    # -- both

    def _begin_record(self) -> int:
        self._record = None
        return self._source.offset

    def _coming(self, layer: str) -> tuple[str, int]:
        """What messages call the record whose header comes, and its number."""
        number = self._numbers[layer] + 1
        return f"{layer} record {number}", number

    def _met(self, layer: str, record_type: int, length: int, offset: int) -> None:
        self._numbers[layer] += 1
        record = Record(layer, self._numbers[layer], record_type, length, offset)
        self._record = record
        self._visitor.record(record)

    def _skip(self, nbytes: int) -> None:
        with self._no_way_past():
            self._source.skip(nbytes, "a record's body")

    def _padding(self, record: Record, rule: str) -> None:
        size = padded_length(record.length) - record.length
        if not size:
            return
        offset = self._source.offset
        with self._no_way_past():
            padding = self._source.read(size, f"the padding of {record.name}")
        try:
            libxc.check_padding(padding, offset, record.name)
        except StreamError as error:
            self._problem(rule, error)


@lru_cache(maxsize=4)
def _one_for(types: bytes) -> bytes:
    """A table for bytes.translate(): 1 for these ``types``, 0 for others."""
    return bytes(byte in types for byte in range(256))
