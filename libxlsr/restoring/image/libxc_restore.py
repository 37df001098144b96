"""Reads a libxc stream from an fd, blocking, and acts on its records as libxenguest would.

Checkpointed streams (Remus) are applied as libxenguest applies them (xg_sr_restore.c): records
take effect at once until the first CHECKPOINT; from then on those of each checkpoint are kept
aside, here in an unlinked file, until the next CHECKPOINT has come and its libxl records with it.
When the stream breaks off in between, what was kept aside is dropped, and the guest is as of the
last checkpoint that was whole.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Callable, NamedTuple

from libxlsr.errors import Aborted, StreamError
from libxlsr.files import write_all
from libxlsr.formats import libxc, page_data
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_order import RecordOrder
from libxlsr.formats.page_types import XEN_DOMCTL_PFINFO_NOTAB
from libxlsr.formats.pv_page_table import check_table
from libxlsr.formats.records import check_libxc_length, decode_libxc_header
from libxlsr.restoring.image.exact_fd import ExactReader
from libxlsr.restoring.image.memory import GuestMemory
from libxlsr.restoring.image.state_files import StateFiles

logger = logging.getLogger(__name__)

_CHUNK = 1 << 20
_BUFFER_PAGES = 128
"""Pages in memory at a time: half a megabyte stays in a CPU's cache between read and write."""


class ConfiguredDomain(NamedTuple):
    """What the configuration says about the domain that the image has to fit into."""

    domain_type: str
    max_vcpus: int


Progress = Callable[[Mapping[str, int]], None]
Checkpoint = Callable[[int], tuple[CheckpointReply, int]]


class LibxcRestore:
    """One libxc stream, read from ``reader`` and rebuilt below ``directory``.

    ``progress`` is told the counters so far, at each record. ``checkpoint(consumed)`` has the libxl
    records of a checkpoint read from the fd, and returns what shall be done and the offset in the
    stream at which libxc's part goes on. ``domain`` is what the configuration says; None without.
    """

    def __init__(
        self,
        reader: ExactReader,
        directory: Path,
        progress: Progress,
        checkpoint: Checkpoint,
        domain: ConfiguredDomain | None = None,
    ) -> None:
        self._reader = reader
        reader.on_short_read = self._count_bytes  # who watches a slow sender sees each byte
        self._stream = self._reader
        self._directory = directory
        self._configured = domain
        self._max_vcpus = None if domain is None else domain.max_vcpus
        self._progress = progress
        self._ask_checkpoint = checkpoint
        self._start = reader.offset
        self._lent_at = reader.offset
        self._memory = GuestMemory(directory)
        self._pages = bytearray(_BUFFER_PAGES * libxc.PAGE_SIZE)
        self._counters = Counter(bytes=0, frames=0, records=0)
        self._records: Counter[str] = Counter()
        self._label: str | None = None
        self._verifying = False
        self._checkpoints = 0
        self._kept_aside: int | None = None
        self._torn = False

    def run(self) -> dict[str, object]:
        """Read to the end; what there is to say about it. Raises errors of libxlsr and OSError."""
        try:
            image = self._read_image_header()
            domain = self._read_domain_header()
            self._is_pv = domain.is_pv
            self._order = RecordOrder(image.version, domain, checkpointed=True)
            self._state = self._make_state(self._order)
            failover = self._read_records()
            pages = self._memory.finish()
            if not domain.is_legacy_converted:  # there, frames that did not exist are not named
                self._check_all_named()
            self._check_p2m_frames()
            self._state.finish()
        finally:
            self._memory.close()
            if self._kept_aside is not None:
                os.close(self._kept_aside)
        return {
            "consumed": self._reader.offset - self._lent_at,
            "version": image.version,
            "kind": "pv" if domain.is_pv else "hvm",
            "xen_version": f"{domain.xen_major}.{domain.xen_minor}",
            "pages": pages,
            "records": dict(self._records),
            "mismatches": self._memory.mismatches,
            "checkpoints": self._checkpoints,
            "failover": None if failover is None else str(failover),
            "failover_at_end": failover is not None and failover.at_end,
        }

    def _make_state(self, order: RecordOrder) -> StateFiles:
        return StateFiles(self._directory, order, self._max_vcpus)

    def _read_image_header(self) -> libxc.ImageHeader:
        start = self._reader.offset
        data = self._reader.read(libxc.IMAGE_HEADER_SIZE, "the libxc image header")
        return libxc.ImageHeader.decode(data, start)

    def _read_domain_header(self) -> libxc.DomainHeader:
        start = self._reader.offset
        data = self._reader.read(libxc.DOMAIN_HEADER_SIZE, "the libxc domain header")
        domain = libxc.DomainHeader.decode(data, start)
        configured = self._configured
        if configured is not None and (configured.domain_type == "pv") != domain.is_pv:
            raise StreamError(
                f"this is the image of {'a PV' if domain.is_pv else 'an HVM or PVH'} guest",
                offset=start,
                record="libxc domain header",
                expected=f"a {configured.domain_type} guest's, as the configuration says",
            )
        return domain

    def _read_records(self) -> StreamError | None:
        """To END; or the reason why it went no further than the last checkpoint."""
        try:
            while self._read_record():
                pass
        except StreamError as error:
            if error.record is None:
                error.record = self._label
            if self._checkpoints == 0 or self._torn:
                raise
            return error
        return None

    def _read_record(self) -> bool:
        """Read one record and apply it or keep it aside; False after the last one."""
        start = self._stream.offset
        number = self._counters["records"] + 1
        self._label = f"libxc record {number}"
        data = self._stream.read(libxc.RECORD_HEADER_SIZE, "a libxc record header")
        header = decode_libxc_header(data, start)
        self._label = f"libxc record {number} ({header.name})"
        self._counters["records"] = number
        self._count_bytes()
        if header.type == RecordType.CHECKPOINT:
            self._order.check(header.type, start)
            return self._checkpoint()
        if self._kept_aside is not None:
            if header.type != RecordType.END:
                if not header.is_optional:
                    check_libxc_length(header.type, header.length, start + 4)
                self._keep_aside(data, header)
                return True
            # libxenguest drops what came since the last checkpoint even here, where the sender
            # ended in good order; the device model's state that follows END would not fit then.
            self._apply_kept_aside(self._kept_aside, self._lent_at)
        return self._apply(header, start)

    def _count_bytes(self) -> None:
        self._counters["bytes"] = self._reader.offset - self._start
        self._progress(self._counters)

    def _apply(self, header: libxc.RecordHeader, start: int) -> bool:
        """Act on a record whose header was read; False after END."""
        if header.is_optional:
            self._skip(header)
            return True
        self._order.check(RecordType(header.type), start)
        self._records[header.name] += 1
        if header.type == RecordType.PAGE_DATA:
            self._page_data(header)
            return True
        check_libxc_length(header.type, header.length, start + 4)
        if header.type == RecordType.END:
            return False
        if header.type == RecordType.VERIFY:
            self._verifying = True
        else:
            body_start = self._stream.offset
            body = memoryview(self._stream.read(header.padded_length, "a libxc record"))
            libxc.check_padding(body[header.length :], body_start + header.length, header.name)
            self._state.store(RecordType(header.type), body[: header.length], body_start)
        return True

    def _skip(self, header: libxc.RecordHeader) -> None:
        left = header.padded_length
        while left:
            left -= len(self._stream.read(min(left, _CHUNK), "an optional libxc record"))

    # -- memory

    def _page_data_head(self, header: libxc.RecordHeader) -> tuple[bytes, page_data.PageData]:
        """What comes before the pages, as it is and decoded; it fits the record's length."""
        start = self._stream.offset
        size = min(header.length, page_data.HEADER_SIZE)
        head = bytes(self._stream.read(size, "the head of PAGE_DATA"))
        length = page_data.prefix_length(head, start, header.length)
        head += self._stream.read(length - len(head), "the frame numbers of PAGE_DATA")
        return head, page_data.decode_pfns(head, start, header.length)

    def _page_data(self, header: libxc.RecordHeader) -> None:
        start = self._stream.offset
        _head, batch = self._page_data_head(header)
        if self._is_pv and max(batch.gfns) >= self._state.p2m_covered:
            raise StreamError(
                f"frame {max(batch.gfns):#x} of a PV guest",
                offset=start,
                expected=f"less than {self._state.p2m_covered:#x}, where its P2M ends",
            )
        self._memory.set_types(batch)
        self._take_pages(batch)
        self._counters["frames"] += batch.data_pages

    def _take_pages(self, batch: page_data.PageData) -> None:
        """The contents of the frames of ``batch`` come next."""
        store = self._verify_pages if self._verifying else self._memory.write_pages
        view = memoryview(self._pages)
        tables = deque(batch.page_tables() if self._is_pv else ())
        filled = used = 0  # bytes of the buffer that were read, and handed on
        remaining = batch.data_pages * libxc.PAGE_SIZE
        for first_gfn, nr_pages in batch.data_runs():
            gfn, length = first_gfn, nr_pages * libxc.PAGE_SIZE
            while length:
                if used == filled:
                    filled, used = min(remaining, len(view)), 0
                    first = batch.data_pages - remaining // libxc.PAGE_SIZE
                    self._stream.read_into(view[:filled], "the pages of PAGE_DATA")
                    remaining -= filled
                    self._check_tables(tables, first, view[:filled])
                piece = min(length, filled - used)
                store(gfn, view[used : used + piece])
                used += piece
                length -= piece
                gfn += piece // libxc.PAGE_SIZE

    def _verify_pages(self, first_gfn: int, pages: memoryview) -> None:
        """Compare what a verify pass has of consecutive frames with what was stored."""
        self._memory.verify_pages(first_gfn, pages)

    def _check_tables(self, tables: deque[tuple[int, int]], first: int, pages: memoryview) -> None:
        """Check those of ``tables`` (`PageData.page_tables`) that are among ``pages``, which were
        just read, the record's from number ``first`` on."""
        start = self._stream.offset - len(pages)
        while tables:
            place = (tables[0][0] - first) * libxc.PAGE_SIZE
            if place >= len(pages):
                return
            table = pages[place : place + libxc.PAGE_SIZE]
            check_table(table, tables[0][1], self._state.p2m_covered, start + place)
            tables.popleft()

    def _check_all_named(self) -> None:
        """Senders name each frame, if only to say that it does not exist. libxenguest does not
        look, and the guest would miss memory that it had."""
        end = self._state.p2m_covered if self._is_pv else None
        gfn = self._memory.first_unnamed(end)
        if gfn is not None:
            raise StreamError(
                f"frame {gfn:#x} was never sent, nor said not to exist",
                offset=None,
                record=RecordType.PAGE_DATA.name,
                remedy="a record was lost: get a whole copy of the image",
            )

    def _check_p2m_frames(self) -> None:
        """As libxenguest's update_guest_p2m(), which writes the P2M into these frames."""
        for index, pfn in enumerate(self._state.p2m):
            if self._memory.type_of(pfn) != XEN_DOMCTL_PFINFO_NOTAB:
                raise StreamError(
                    f"frame {index} of the P2M is at pfn {pfn:#x}",
                    offset=None,
                    record=RecordType.X86_PV_P2M_FRAMES.name,
                    expected="an ordinary frame with contents",
                )

    # -- checkpoints

    def _checkpoint(self) -> bool:
        """A CHECKPOINT was read: have its libxl records read, then apply what was kept aside."""
        section, consumed = self._lent_at, self._reader.offset - self._lent_at
        self._lent_at = self._reader.offset
        reply, offset = self._ask_checkpoint(consumed)
        if reply is CheckpointReply.ERROR:
            raise Aborted("the checkpoint was refused")
        if reply is CheckpointReply.FAILOVER:
            raise StreamError("the stream broke off inside a checkpoint", offset=None)
        self._reader.offset = self._lent_at = offset
        self._records[RecordType.CHECKPOINT.name] += 1
        if self._kept_aside is None:
            self._kept_aside = _unlinked_file(self._directory)
        else:
            self._apply_kept_aside(self._kept_aside, section)
        self._checkpoints += 1
        return True

    def _keep_aside(self, header_data: bytearray, header: libxc.RecordHeader) -> None:
        assert self._kept_aside is not None
        write_all(self._kept_aside, header_data)
        left = header.padded_length
        if header.type == RecordType.PAGE_DATA:
            # With a false length it would take the records that follow for its own, up to the
            # stream's end, which would pass for a sender that has died.
            head, _batch = self._page_data_head(header)
            write_all(self._kept_aside, head)
            left -= len(head)
        while left:
            chunk = self._stream.read(min(left, _CHUNK), "a libxc record")
            write_all(self._kept_aside, chunk)
            left -= len(chunk)

    def _apply_kept_aside(self, fd: int, section: int) -> None:
        """Act on the records of the checkpoint whose part of the stream began at ``section``."""
        size = os.lseek(fd, 0, os.SEEK_CUR)
        os.lseek(fd, 0, os.SEEK_SET)
        self._stream = ExactReader(fd, section)
        self._torn = True  # a failure from here on leaves a mixture of two checkpoints
        while self._stream.offset < section + size:
            start = self._stream.offset
            data = self._stream.read(libxc.RECORD_HEADER_SIZE, "a libxc record header")
            header = decode_libxc_header(data, start)
            self._label = f"libxc record ({header.name})"
            self._apply(header, start)
        self._torn = False
        self._stream = self._reader
        os.lseek(fd, 0, os.SEEK_SET)
        os.ftruncate(fd, 0)


def _unlinked_file(directory: Path) -> int:
    path = directory / "checkpoint"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return fd
