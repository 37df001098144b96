"""The grammar of an image, from xl's header to the byte after END.

::

    [xl header, configuration]  libxl header  libxl record...
    LIBXC_CONTEXT               libxc's image (`libxlsr.libxc.walker`), up to CHECKPOINT or END
    CHECKPOINT                  libxl records up to CHECKPOINT_END, then libxc records again
    libxc END                   libxl records up to END

An image of Xen 4.5 or older is converted on the way, and what it becomes is walked over.
"""

from __future__ import annotations

from libxlsr.errors import StreamError
from libxlsr.formats import libxl, records, xl
from libxlsr.formats.framing import padded_length
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxl_order import RecordOrder
from libxlsr.formats.recognise import SIZE as RECOGNISE_SIZE
from libxlsr.formats.recognise import recognise
from libxlsr.libxc.record_walk import CannotGoOn, RecordWalk
from libxlsr.libxc.visitor import Record
from libxlsr.libxc.walker import Walker
from libxlsr.source.byte_reader import LookaheadReader
from libxlsr.tools.verify.image_visitor import ImageVisitor

_END = 1
_CHECKPOINT_END = 2


class ImageWalker(RecordWalk):
    """One walk over the image that ``reader`` reads, telling ``visitor``."""

    _reader: LookaheadReader
    _visitor: ImageVisitor

    def __init__(self, reader: LookaheadReader, visitor: ImageVisitor) -> None:
        super().__init__("libxl", reader, visitor)
        self._order = RecordOrder()

    def run(self, kind: str) -> None:
        """Walk over an image of ``kind`` ("xl", "libxl", "libxc", "legacy"). Raises TargetError."""
        whole = False
        try:
            if kind == "legacy":
                self._legacy()
            elif kind == "libxc":
                self._libxc(nested=False)
            else:
                if kind == "xl":
                    self._xl()
                self._libxl()
            self._record = None
            with self._rule("trailing-data", where="the image's end"):
                self._nothing_follows()
            whole = True
        except CannotGoOn:
            pass
        self._visitor.ended(whole=whole, offset=self._reader.offset)

    def _nothing_follows(self) -> None:
        if not self._reader.at_end():
            raise StreamError(
                "something follows the end of the image",
                offset=self._reader.offset,
                expected="the end of the file",
            )

    # -- xl

    def _legacy(self) -> None:
        """xl's header, where there is one, and the libxl stream that the rest becomes."""
        from libxlsr.source.legacy.conversion import converted

        old = self._reader
        if recognise(old.peek(RECOGNISE_SIZE)) == "xl":
            self._xl(legacy=True)
        self._reader = converted(old)
        self._libxl()
        self._reader = old

    def _xl(self, *, legacy: bool = False) -> None:
        reader = self._reader
        with self._rule("xl-header"):
            data = reader.read(xl.FIXED_HEADER_SIZE, "the xl header")
            header = xl.Header.decode(data, legacy=legacy)
            self._visitor.xl_header(header)
        start = reader.offset
        with self._rule("xl-config", "xl optional data"):
            data = reader.read(header.optional_data_len, "the domain configuration")
        if not header.has_json:
            return
        try:
            self._visitor.optional_data(xl.OptionalData.decode(data, start))
        except StreamError as error:
            self._problem("xl-config", error)

    # -- libxl

    def _libxl(self) -> None:
        reader = self._reader
        start = reader.offset
        with self._rule("libxl-header"):
            data = reader.read(libxl.HEADER_SIZE, "the libxl header")
            self._visitor.libxl_header(libxl.Header.decode(data, start))
        while self._libxl_record() != _END:
            pass

    def _libxl_record(self) -> int | None:
        """Past one record; its type if it is one that ends a section: END, CHECKPOINT_END."""
        header = self._next_header()
        record = self._record
        assert record is not None
        if header.is_optional:
            self._skip(header.padded_length)
            return None
        self._check_order(libxl.RecordType(header.type))
        if header.type == libxl.RecordType.LIBXC_CONTEXT:
            self._libxc(nested=True)
        elif header.type == libxl.RecordType.EMULATOR_CONTEXT:
            self._emulator_context(record)
        elif records.LIBXL[header.type].decode is not None:
            self._libxl_body(record)
        if header.type == libxl.RecordType.END:
            return _END
        return _CHECKPOINT_END if header.type == libxl.RecordType.CHECKPOINT_END else None

    def _next_header(self) -> libxl.RecordHeader:
        offset = self._begin_record()
        with self._rule("libxl-record-header", *self._coming()):
            data = self._reader.read(libxl.RECORD_HEADER_SIZE, "a libxl record or its END")
            header = records.decode_libxl_header(data, offset)
        self._visitor.record(self._met(header.type, header.length, offset))
        return header

    def _check_order(self, record_type: libxl.RecordType) -> None:
        record = self._record
        assert record is not None
        try:
            self._order.check(record_type, record.offset)
        except StreamError as error:
            self._problem("libxl-order", error)
            if record_type is libxl.RecordType.LIBXC_CONTEXT:
                raise CannotGoOn from None

    def _emulator_context(self, record: Record) -> None:
        size = record.length - libxl.EMULATOR_HEADER_SIZE
        head_size = min(record.length, libxl.EMULATOR_HEADER_SIZE)
        with self._no_way_past():
            data = self._reader.read(head_size, "an EMULATOR_CONTEXT")
        try:
            head = libxl.EmulatorContext.decode(data, record.body_offset)
        except StreamError as error:
            self._wrong_body(record, records.LIBXL[record.type].finding, error)
            self._skip(padded_length(record.length) - head_size)
            return
        self._visitor.emulator_context(record, head, size)
        with self._no_way_past():
            if self._visitor.wants_emulator_state():
                for piece in self._reader.pieces(size, "the device model's state"):
                    self._visitor.emulator_state(piece)
            else:
                self._reader.skip(size, "the device model's state")
        self._padding(record, "libxl-padding")

    def _libxl_body(self, record: Record) -> None:
        with self._no_way_past():
            data = self._reader.read(record.length, f"the body of {record.name}")
        self._padding(record, "libxl-padding")
        row = records.LIBXL[record.type]
        assert row.decode is not None  # the header would not have been taken otherwise
        try:
            body = row.decode(data, record.body_offset)
        except StreamError as error:
            self._wrong_body(record, row.finding, error)
        else:
            self._visitor.libxl_body(record, body)

    def _libxc(self, *, nested: bool) -> None:
        """libxc's image to its END, through all checkpoints."""
        walker = Walker(self._reader, self._visitor)
        walker.headers()
        while walker.section() == RecordType.CHECKPOINT:
            if nested:
                self._checkpoint()
            walker.go_on()

    def _checkpoint(self) -> None:
        """libxl's records of a checkpoint."""
        self._order.start_checkpoint()
        ended = None
        while not ended:
            ended = self._libxl_record()
        if ended == _END:  # told as a problem of the order; there is nothing to go on with
            raise CannotGoOn
