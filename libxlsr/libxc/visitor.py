"""What a walk over a libxc image tells of: places, and a visitor with a method for each thing."""

from __future__ import annotations

import enum
from typing import NamedTuple

from libxlsr.errors import StreamError
from libxlsr.formats import libxc, libxl
from libxlsr.formats.libxc_records import RecordBody
from libxlsr.formats.page_data import PageData
from libxlsr.libxc.guest import ConfiguredGuest, Guest


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
    def is_optional(self) -> bool:
        """Whether a reader that doesn't know the type may skip it."""
        return bool(self.type & libxc.REC_TYPE_OPTIONAL)

    @property
    def body_offset(self) -> int:
        """The offset of the body's first byte."""
        return self.offset + libxc.RECORD_HEADER_SIZE

    def __str__(self) -> str:
        return f"{self.layer} record {self.number} ({self.name})"


class Problem(NamedTuple):
    """Something that the grammar or a rule does not allow."""

    rule: str
    """The id of the finding that `libxlsr.tools.verify.findings` documents."""

    error: StreamError
    number: int | None
    """Of the record at fault, or of the one that should begin here; None outside of records."""


class Wanted(enum.Enum):
    """Which contents of a PAGE_DATA record are read."""

    NOTHING = enum.auto()
    PAGE_TABLES = enum.auto()
    """Those of a PV guest's page tables, whose entries are looked at."""
    EVERYTHING = enum.auto()


class Visitor:
    """Told of everything in its order. Each method does nothing; override what is wanted."""

    def configured(self) -> ConfiguredGuest:
        """What the image has to fit. Asked for once, before domain_header()."""
        return ConfiguredGuest()

    def image_header(self, header: libxc.ImageHeader) -> None:
        """The first header."""

    def domain_header(self, guest: Guest) -> None:
        """The second header. From now on the walk puts together what ``guest`` says."""

    def record(self, record: Record) -> None:
        """A record's header, before anything of its body."""

    def buffered(self, record: Record) -> None:
        """A record was read that is kept until the next CHECKPOINT, and record() will tell of."""

    def libxc_body(self, record: Record, body: RecordBody, data: memoryview) -> None:
        """The body of a record that has one but for PAGE_DATA, and its bytes without padding."""

    def page_data(self, record: Record, batch: PageData) -> None:
        """The frames of a PAGE_DATA record."""

    def wanted(self, batch: PageData) -> Wanted:
        """Which contents of the record's frames are to be read."""
        return Wanted.NOTHING

    def pages(self, first_gfn: int, data: bytes | memoryview) -> None:
        """Contents of consecutive frames; a record's come in its order. They are there during the
        call only. Told where everything is wanted."""

    def checkpoint(self, number: int) -> None:
        """A checkpoint is whole, its libxl records included. Counts from 1."""

    def problem(self, problem: Problem) -> None:
        """The image is wrong here. Where this returns, the walk goes on as far as it can."""
