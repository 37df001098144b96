"""PAGE_DATA: a list of guest frames with their types, then the contents of those that have some.

::

    count u32, reserved u32
    entry[count] u64     bits 63-60 type, bits 59-52 reserved, bits 51-0 guest frame number
    page[N]              4096 bytes for each entry whose type has data, in the same order

A record holds up to 4 MiB of pages, so a reader decodes the front part and streams the rest: first
the 8 bytes of count (``prefix_length``), then these and the entries (``decode_pfns``).

Senders write 1024 entries a record and a guest of 16 GiB has four million of them. All checks run
on the whole array in C: each byte column of the little-endian entries is a slice with step 8, and
there ``count`` and ``translate`` find what mustn't be. Only a damaged array is looked at in Python.

Source: docs/specs/libxc-migration-stream.pandoc, "PAGE_DATA".
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import compress, islice
from operator import sub

from libxlsr.errors import StreamError
from libxlsr.formats.framing import Buffer, check_length, check_reserved
from libxlsr.formats.libxc import PAGE_SIZE, RecordType
from libxlsr.formats.page_types import (
    PAGE_TYPE_NAMES,
    WITHOUT_DATA,
    has_page_tables,
    is_page_table,
)

PAGE_DATA_PFN_MASK = 0x000FFFFFFFFFFFFF
PAGE_DATA_TYPE_MASK = 0xF000000000000000
_TYPE_SHIFT = 60
_RESERVED_MASK = 0x0FF0000000000000

#: Guest frames are below 2**40: x86 has at most 52 bits of physical address (AMD64 manual,
#: volume 2, 5.1), 12 of which are within the page. The format's field is 12 bits wider.
GFN_LIMIT = 1 << 40

#: So many frames are taken in one record: more than twice the contents that fit into one.
#: Xen writes 1024 at the most (MAX_BATCH_SIZE in tools/libs/guest/xg_sr_common.h).
FRAMES_MAX = 1 << 16

_HEADER = struct.Struct("<II")
HEADER_SIZE = _HEADER.size
ENTRY_SIZE = 8

_TEMPLATE_FRAMES = 1 << 16

_NAME = RecordType.PAGE_DATA.name
_VALID_TOP_BYTES = bytes(page_type << 4 for page_type in PAGE_TYPE_NAMES)
_TOP_BYTES_WITHOUT_DATA = bytes(page_type << 4 for page_type in WITHOUT_DATA)
_TOP_BYTE_TO_TYPE = bytes(byte >> 4 for byte in range(256))
_TYPES_WITHOUT_DATA = bytes(WITHOUT_DATA)
_TYPE_TO_HAS_DATA = bytes(byte not in WITHOUT_DATA for byte in range(256))


def prefix_length(header: Buffer, offset: int, record_length: int) -> int:
    """How many bytes come before the first page's contents: the count and the entries.

    ``header`` is the first 8 bytes of the body, ``record_length`` the length that the record's
    header says. Raises StreamError if the entries don't fit into the record.
    """
    check_length(header, HEADER_SIZE, offset, _NAME)
    count, reserved = _HEADER.unpack(header)
    if count == 0:
        raise StreamError("count is 0", offset=offset, record=_NAME, expected="at least 1")
    if count > FRAMES_MAX:
        raise StreamError(
            f"count is {count}", offset=offset, record=_NAME, expected=f"at most {FRAMES_MAX}"
        )
    prefix = HEADER_SIZE + ENTRY_SIZE * int(count)
    if prefix > record_length:
        raise StreamError(
            f"count is {count}, which takes {prefix} bytes",
            offset=offset,
            record=_NAME,
            expected=f"at most the record's {record_length} bytes",
        )
    check_reserved(reserved, offset + 4, _NAME)
    return prefix


class PageData:
    """The entries of one PAGE_DATA record, without the pages' contents.

    What is asked of them is worked out once, and at once known for what real senders write most:
    ordinary frames, each following the one before it.
    """

    def __init__(self, entries: bytes) -> None:
        self.entries = entries
        self.count = len(entries) // ENTRY_SIZE
        """How many guest frames the record describes."""
        self._top_bytes: bytes | None = None
        self._types: bytes | None = None
        self._gfns: Sequence[int] | None = None
        self._data_pages: int | None = None
        self._is_consecutive: bool | None = None
        self._has_page_tables: bool | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PageData) and self.entries == other.entries

    def __hash__(self) -> int:
        return hash(self.entries)

    def __repr__(self) -> str:
        return f"PageData({self.entries!r})"

    @property
    def top_bytes(self) -> bytes:
        """The highest 8 bits of each entry: its type, and reserved ones."""
        if self._top_bytes is None:
            self._top_bytes = self.entries[7::8]
        return self._top_bytes

    @property
    def types(self) -> bytes:
        """The type of each entry (XEN_DOMCTL_PFINFO_*), one byte each."""
        if self._types is None:
            self._types = self.top_bytes.translate(_TOP_BYTE_TO_TYPE)
        return self._types

    @property
    def gfns(self) -> Sequence[int]:
        """The guest frame number of each entry."""
        if self._gfns is None:
            frames = bytearray(self.entries)
            frames[7::8] = bytes(self.count)
            self._gfns = _run(frames) or _words(frames)
        return self._gfns

    @property
    def data_pages(self) -> int:
        """How many pages of contents follow the entries."""
        if self._data_pages is None:
            self._data_pages = len(self.top_bytes.translate(None, _TOP_BYTES_WITHOUT_DATA))
        return self._data_pages

    @property
    def has_page_tables(self) -> bool:
        """Whether any of the frames is a PV guest's page table."""
        if self._has_page_tables is None:
            self._has_page_tables = has_page_tables(self.types)
        return self._has_page_tables

    @property
    def record_length(self) -> int:
        """The length of the record's body, bytes."""
        return HEADER_SIZE + len(self.entries) + PAGE_SIZE * self.data_pages

    @property
    def is_consecutive(self) -> bool:
        """Whether each frame follows the one before it, as in most records of real senders."""
        if self._is_consecutive is None:
            self._is_consecutive = isinstance(self.gfns, range)
        return self._is_consecutive

    @property
    def lowest(self) -> int:
        """The lowest guest frame number."""
        return self.gfns[0] if self.is_consecutive else min(self.gfns)

    @property
    def highest(self) -> int:
        """The highest guest frame number."""
        return self.gfns[-1] if self.is_consecutive else max(self.gfns)

    def is_plain_run(self) -> bool:
        """Whether all are ordinary frames (NOTAB), each following the one before it."""
        gfns = _run(self.entries)
        if gfns is None:
            return False
        self._types = bytes(self.count)
        self._gfns = gfns
        self._data_pages = self.count
        self._is_consecutive = True
        self._has_page_tables = False
        return True

    def with_data(self) -> tuple[Sequence[int], bytes]:
        """The frame numbers and the types of those entries alone that have contents."""
        if self.data_pages == self.count:
            return self.gfns, self.types
        gfns = array("Q", compress(self.gfns, self.types.translate(_TYPE_TO_HAS_DATA)))
        return gfns, self.types.translate(None, _TYPES_WITHOUT_DATA)

    def data_runs(self) -> Iterator[tuple[int, int]]:
        """``(first gfn, number)`` for each longest run of frames whose contents lie one after
        another in the stream, in the stream's order."""
        gfns, _ = self.with_data()
        if _is_consecutive(gfns):
            yield gfns[0], len(gfns)
            return
        for begin, end in runs(gfns):
            yield gfns[begin], end - begin

    def page_tables(self) -> Iterator[tuple[int, int]]:
        """``(index, gfn)`` of each page table: of its contents among the record's pages, from 0
        on, and of its frame."""
        if not self.has_page_tables:
            return
        for index, (gfn, page_type) in enumerate(zip(*self.with_data())):
            if is_page_table(page_type):
                yield index, gfn

    def encode(self) -> bytes:
        """The record's body up to the first page's contents."""
        return _HEADER.pack(self.count, 0) + self.entries

    @classmethod
    def of(cls, frames: Iterable[tuple[int, int]]) -> PageData:
        """The entries for ``(gfn, type)`` pairs."""
        words = array("Q", [page_type << _TYPE_SHIFT | gfn for gfn, page_type in frames])
        _to_little_endian(words)
        return cls(words.tobytes())


def decode_pfns(prefix: Buffer, offset: int, record_length: int) -> PageData:
    """The entries of a PAGE_DATA record whose body begins at ``offset``.

    ``prefix`` is the body up to the first page's contents (``prefix_length`` bytes). Raises
    StreamError for a count of 0, and as decode_entries().
    """
    length = prefix_length(prefix[:HEADER_SIZE], offset, record_length)
    check_length(prefix, length, offset, _NAME)
    return decode_entries(bytes(prefix[HEADER_SIZE:]), offset, record_length)


def decode_entries(entries: bytes, offset: int, record_length: int) -> PageData:
    """The same, of the entries alone; ``prefix_length`` said how many they are.

    Raises StreamError for a reserved type (5 to 8) or bit, a frame that x86 can't have, and for a
    record that is not exactly as long as its entries say.
    """
    page_data = PageData(entries)
    count = page_data.count
    if not page_data.is_plain_run() and _has_wrong_entry(page_data):
        raise _wrong_entry(page_data, offset + HEADER_SIZE)
    if record_length != page_data.record_length:
        raise StreamError(
            f"the record is {record_length} bytes long",
            offset=offset,
            record=_NAME,
            expected=f"{page_data.record_length} bytes for {count} frames,"
            f" {page_data.data_pages} of them with contents",
        )
    return page_data


def _has_wrong_entry(page_data: PageData) -> bool:
    entries, count = page_data.entries, page_data.count
    if page_data.top_bytes.translate(None, _VALID_TOP_BYTES):
        return True
    if page_data.is_consecutive:  # then the last frame is below the limit, and so are all
        return False
    return entries[6::8].count(0) != count or entries[5::8].count(0) != count


def _wrong_entry(page_data: PageData, offset: int) -> StreamError:
    """The error for the first wrong entry; there is one."""
    index, message, expected = next(_wrong_entries(_words(page_data.entries)))
    return StreamError(
        f"entry {index} of {page_data.count}: {message}",
        offset=offset + ENTRY_SIZE * index,
        record=_NAME,
        expected=expected,
    )


def _wrong_entries(words: Iterable[int]) -> Iterator[tuple[int, str, str]]:
    for index, word in enumerate(words):
        page_type = word >> _TYPE_SHIFT
        gfn = word & PAGE_DATA_PFN_MASK
        if page_type not in PAGE_TYPE_NAMES:
            yield index, f"page type is {page_type:#x}", "0 to 4 or 9 to 0xf"
        elif word & _RESERVED_MASK:
            yield index, f"reserved bits are set in {word:#018x}", "zero in bits 52 to 59"
        elif gfn >= GFN_LIMIT:
            yield index, f"guest frame number is {gfn:#x}", f"less than {GFN_LIMIT:#x}"


def runs(gfns: Sequence[int]) -> Iterator[tuple[int, int]]:
    """``(begin, end)``, the places of each longest run of frames that follow each other."""
    begin = 0
    for end, step in enumerate(map(sub, islice(gfns, 1, None), gfns), 1):
        if step != 1:
            yield begin, end
            begin = end
    if gfns:
        yield begin, len(gfns)


def _is_consecutive(gfns: Sequence[int]) -> bool:
    count = len(gfns)
    if count == 0 or gfns[-1] - gfns[0] != count - 1:
        return False
    if isinstance(gfns, range):
        return True
    gfns = array("Q", gfns)
    # One number of 64 bits a frame: a tenth of the time that a comparison frame by frame takes.
    steps, ones = _ramp(count)
    return int.from_bytes(gfns.tobytes(), sys.byteorder) == steps + ones * gfns[0]


def _run(entries: bytes | bytearray) -> range | None:
    """The frames of ``entries`` if all are ordinary and each follows the one before it; or None."""
    count = len(entries) // ENTRY_SIZE
    first = int.from_bytes(entries[:ENTRY_SIZE], "little")
    last = int.from_bytes(entries[-ENTRY_SIZE:], "little")
    if last >= GFN_LIMIT or last != first + count - 1:
        return None
    done = 0
    while done < count:
        index, begin = divmod(first + done, _TEMPLATE_FRAMES)
        end = min(begin + count - done, _TEMPLATE_FRAMES)
        piece = entries[done * ENTRY_SIZE : (done + end - begin) * ENTRY_SIZE]
        if not _plain_run(index).startswith(piece, begin * ENTRY_SIZE):
            return None
        done += end - begin
    return range(first, last + 1)


@lru_cache(maxsize=2)
def _plain_run(index: int) -> bytearray:
    """The entries of _TEMPLATE_FRAMES ordinary frames, from ``index`` times as many on."""
    entries = bytearray(_first_plain_run())
    for column, byte in enumerate(index.to_bytes(3, "little"), 2):
        if byte:
            entries[column::8] = bytes([byte]) * _TEMPLATE_FRAMES
    return entries


@lru_cache(maxsize=1)
def _first_plain_run() -> bytes:
    entries = bytearray(ENTRY_SIZE * _TEMPLATE_FRAMES)
    entries[0::8] = bytes(range(256)) * 256
    entries[1::8] = b"".join(bytes([byte]) * 256 for byte in range(256))
    return bytes(entries)


@lru_cache(maxsize=4)
def _ramp(count: int) -> tuple[int, int]:
    """The words 0, 1, 2, ... and the words 1, 1, 1, ..., each as one number."""
    steps, ones = array("Q", range(count)), array("Q", [1]) * count
    return (
        int.from_bytes(steps.tobytes(), sys.byteorder),
        int.from_bytes(ones.tobytes(), sys.byteorder),
    )


def _words(entries: Buffer) -> array[int]:
    words = array("Q", bytes(entries))
    _to_little_endian(words)
    return words


def _to_little_endian(words: array[int]) -> None:
    if sys.byteorder == "big":  # pragma: no cover - no such machine here
        words.byteswap()
