"""What a walk tells of: places, and a visitor with a method for each thing that is met."""

from __future__ import annotations

from typing import NamedTuple

from libxlsr.errors import StreamError
from libxlsr.formats import libxc, libxl, xl
from libxlsr.formats.libxc_records import RecordBody
from libxlsr.formats.page_data import PageData
from libxlsr.formats.records import LibxlBody


class Record(NamedTuple):
    """Where a record stands. ``offset`` is its header's, ``length`` its body's without padding."""

    layer: str
    """"libxl" or "libxc"."""

    number: int
    """Counts the layer's records, from 1."""

    type: int
    length: int
    offset: int

    @property
    def name(self) -> str:
        named = libxl.record_name if self.layer == "libxl" else libxc.record_name
        return named(self.type)

    @property
    def body_offset(self) -> int:
        """The offset of the body's first byte."""
        return self.offset + libxc.RECORD_HEADER_SIZE

    def __str__(self) -> str:
        return f"{self.layer} record {self.number} ({self.name})"


class Problem(NamedTuple):
    """Something that the grammar does not allow."""

    rule: str
    """The id of the finding that `libxlsr.tools.verify.findings` documents."""

    error: StreamError
    number: int | None
    """Of the record at fault, or of the one that should begin here; None outside of records."""


class Visitor:
    """Told of everything in its order. Each method does nothing; override what is wanted."""

    def opened(self, kind: str, compression: str | None) -> None:
        """The image was recognised: "xl", "libxl" or "libxc"; "gzip", "xz", "zstd" or None."""

    def xl_header(self, header: xl.Header) -> None:
        """xl's header; what follows it comes in optional_data()."""

    def optional_data(self, data: xl.OptionalData) -> None:
        """The configuration."""

    def libxl_header(self, header: libxl.Header) -> None:
        """The stream's header."""

    def image_header(self, header: libxc.ImageHeader) -> None:
        """libxc's first header."""

    def domain_header(self, header: libxc.DomainHeader) -> None:
        """libxc's second header."""

    def record(self, record: Record) -> None:
        """A record's header, before anything of its body."""

    def libxl_body(self, record: Record, body: LibxlBody) -> None:
        """The body of a libxl record that has one, but for EMULATOR_CONTEXT."""

    def emulator_context(self, record: Record, head: libxl.EmulatorContext, size: int) -> None:
        """An EMULATOR_CONTEXT whose state (``size`` bytes, not in ``head``) follows."""

    def wants_emulator_state(self) -> bool:
        """Whether emulator_state() is to be called."""
        return False

    def emulator_state(self, piece: bytes | memoryview) -> None:
        """The next bytes of the device model's state, which are there during the call only."""

    def libxc_body(self, record: Record, body: RecordBody, data: memoryview) -> None:
        """The body of a libxc record but PAGE_DATA, and its bytes without padding."""

    def page_data(self, record: Record, batch: PageData) -> None:
        """The frames of a PAGE_DATA record."""

    def wanted_pages(self, batch: PageData) -> bytes:
        """The types of those frames whose contents pages() is to be told, of the record's frames;
        nothing for none."""
        return b""

    def pages(self, first_gfn: int, page_type: int, data: bytes | memoryview) -> None:
        """Contents of consecutive frames of one type; a record's come in its order. They are there
        during the call only."""

    def checkpoint(self, number: int) -> None:
        """A checkpoint is whole, its libxl records included. Counts from 1."""

    def problem(self, problem: Problem) -> None:
        """The grammar is broken here. The walk goes on where it can."""

    def ended(self, *, whole: bool, offset: int) -> None:
        """The walk is over. ``whole``: the end of the image was met where it belongs."""
