"""Rebuilds a guest from the libxc stream on an fd, blocking, and refuses what libxenguest would.

Checkpointed streams (Remus) are applied as libxenguest applies them (xg_sr_restore.c): records
take effect at once until the first CHECKPOINT; from then on those of each checkpoint wait until the
next CHECKPOINT has come and its libxl records with it. When the stream breaks off in between, what
waits is dropped, and the guest is as of the last checkpoint that was whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Callable

from libxlsr.errors import Aborted, StreamError
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_records import RecordBody
from libxlsr.formats.page_data import PageData
from libxlsr.libxc import rules
from libxlsr.libxc.guest import ConfiguredGuest, Guest
from libxlsr.libxc.visitor import Problem, Record, Visitor, Wanted
from libxlsr.libxc.walker import Walker
from libxlsr.restoring.image.memory import GuestMemory
from libxlsr.restoring.image.state_files import StateFiles
from libxlsr.source.exact_reader import ExactReader

Progress = Callable[[Mapping[str, int]], None]
Checkpoint = Callable[[int], tuple[CheckpointReply, int]]


class LibxcRestore(Visitor):
    """One libxc stream, read from ``reader`` and rebuilt below ``directory``.

    ``progress`` is told the counters so far, at each record. ``checkpoint(consumed)`` has the libxl
    records of a checkpoint read from the fd, and returns what shall be done and the offset in the
    stream at which libxc's part goes on. ``configured`` is what the configuration says.
    """

    def __init__(
        self,
        reader: ExactReader,
        directory: Path,
        progress: Progress,
        checkpoint: Checkpoint,
        configured: ConfiguredGuest | None = None,
    ) -> None:
        self._reader = reader
        reader.on_short_read = self._count_bytes  # who watches a slow sender sees each byte
        self._directory = directory
        self._configured = configured or ConfiguredGuest()
        self._progress = progress
        self._ask_checkpoint = checkpoint
        self._start = self._lent_at = reader.offset
        self._memory = GuestMemory(directory)
        self._state = StateFiles(directory)
        self._walker = Walker(reader, self, buffer_in=directory)
        self._counters = Counter(bytes=0, frames=0, records=0)
        self._records: Counter[str] = Counter()
        self._verifying = False
        self._checkpoints = 0

    def run(self) -> dict[str, object]:
        """Read to the end; what there is to say about it. Raises errors of libxlsr and OSError."""
        try:
            self._walker.headers()
            failover = self._sections()
            pages = self._memory.finish()
            rules.frames_missing(self._guest, self._memory)
            for _, unusable in rules.p2m_frame_unusable(self._guest, self._memory):
                raise unusable
            self._state.finish(self._guest)
        finally:
            self._memory.close()
            self._walker.close()
        return {
            "consumed": self._reader.offset - self._lent_at,
            "version": self._guest.image.version,
            "kind": "pv" if self._guest.is_pv else "hvm",
            "xen_version": self._guest.xen_version,
            "pages": pages,
            "records": dict(self._records),
            "mismatches": self._memory.mismatches,
            "checkpoints": self._checkpoints,
            "failover": None if failover is None else str(failover),
            "failover_at_end": failover is not None and failover.at_end,
        }

    def _sections(self) -> StreamError | None:
        """To END; or the reason why it went no further than the last checkpoint."""
        try:
            while self._walker.section() == RecordType.CHECKPOINT:
                self._have_libxl_read()
                self._walker.go_on()
        except StreamError as error:
            if self._checkpoints == 0 or self._walker.replaying:
                raise
            return error
        return None

    def _have_libxl_read(self) -> None:
        """A CHECKPOINT was read: its libxl records come next."""
        consumed = self._reader.offset - self._lent_at
        self._lent_at = self._reader.offset
        reply, offset = self._ask_checkpoint(consumed)
        if reply is CheckpointReply.ERROR:
            raise Aborted("the checkpoint was refused")
        if reply is CheckpointReply.FAILOVER:
            raise StreamError("the stream broke off inside a checkpoint", offset=None)
        self._reader.offset = self._lent_at = offset

    # -- what the walk tells

    def configured(self) -> ConfiguredGuest:
        return self._configured

    def domain_header(self, guest: Guest) -> None:
        self._guest = guest

    def record(self, record: Record) -> None:
        if not self._walker.replaying:
            self._count(record)
        if record.type == RecordType.VERIFY:
            self._verifying = True
        if record.is_optional or record.type == RecordType.CHECKPOINT:
            return  # a checkpoint counts when it is whole
        self._records[record.name] += 1

    def buffered(self, record: Record) -> None:
        self._count(record)

    def checkpoint(self, number: int) -> None:
        self._checkpoints = number
        self._records[RecordType.CHECKPOINT.name] += 1

    def problem(self, problem: Problem) -> None:
        raise problem.error

    def libxc_body(self, record: Record, body: RecordBody, data: memoryview) -> None:
        self._state.store(record, body, data)

    def page_data(self, record: Record, batch: PageData) -> None:
        self._memory.set_types(batch)
        self._counters["frames"] += batch.data_pages

    def wanted(self, batch: PageData) -> Wanted:
        return Wanted.EVERYTHING

    def pages(self, first_gfn: int, data: bytes | memoryview) -> None:
        if self._verifying:
            self._memory.verify_pages(first_gfn, data)
        else:
            self._memory.write_pages(first_gfn, data)

    def _count(self, record: Record) -> None:
        self._counters["records"] = record.number
        self._count_bytes()

    def _count_bytes(self) -> None:
        self._counters["bytes"] = self._reader.offset - self._start
        self._progress(self._counters)
