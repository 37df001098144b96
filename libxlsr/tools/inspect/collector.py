"""Collects what there is to show of an image, with the checks of verify on the way.

Kept are the last record of each kind of state (where records add to one another, the checks have
put them together), where each record stands, how many there are of each kind, and which frames came
when. Each is bounded: an image can have more records than there is room for, and then says so.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from libxlsr.formats import libxl, xl
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_pv import VCPU_RECORDS
from libxlsr.formats.libxc_records import RecordBody
from libxlsr.formats.page_data import PageData
from libxlsr.formats.records import LibxlBody
from libxlsr.libxc.visitor import Record
from libxlsr.tools.verify.digest import GuestDigest
from libxlsr.tools.verify.findings import Findings
from libxlsr.tools.verify.verifier import Verification

RECORDS_MAX = 1 << 17
"""Records whose places are kept: a guest of 512 GiB has as many."""
KINDS_MAX = 1 << 10
"""Kinds of records that are counted; an image can have any number of optional ones."""
ROUNDS_MAX = 1 << 12
STATE_MAX = 8 << 20
"""Bytes of libxc's state that are kept to be decoded, which makes them many times as large: enough
for 512 vCPUs of 16 KiB each."""
EMULATOR_STATE_MAX = 16 << 20
"""Bytes of the device model's state that are kept: QEMU's has a few hundred KiB."""


@dataclass
class Round:
    """Frames that were sent one after another upwards: an iteration, or a checkpoint's.

    A sender goes through the frames upwards each time, and fills each PAGE_DATA record with as many
    frames (MAX_BATCH_SIZE, 1024) but for the last, whatever their types and whether they come with
    contents (send_dirty_pages() and write_batch() in Xen's tools/libs/guest/xg_sr_save.c). So a
    round begins where frame numbers step down, and after a record that is not full. An iteration of
    full records only is one with the next, if that begins above where it ended.
    """

    checkpoint: int | None
    """Which checkpoint it is of, from 1; None before the first is complete."""
    first_record: int
    last_record: int
    frames: int = 0
    pages: int = 0
    """How many of the frames came with contents."""


class StateRecord(NamedTuple):
    """The body of a libxc record, and what it takes to decode it."""

    type: RecordType
    guest_width: int
    """X86_PV_INFO's, 4 or 8."""
    data: bytes


class Collector(Verification):
    """A verification that keeps what it saw. ``digest`` makes it read all of memory."""

    def __init__(self, findings: Findings, *, full: bool, digest: GuestDigest | None) -> None:
        super().__init__(findings, full=full, digest=digest)
        self.xl: xl.Header | None = None
        self.libxl: libxl.Header | None = None
        self.places: list[Record] = []
        self.record_counts: Counter[tuple[str, str]] = Counter()
        """How many records there are, by layer and name."""
        self.record_bytes: Counter[tuple[str, str]] = Counter()
        """What their bodies come to, without padding."""
        self.state: dict[str, StateRecord] = {}
        """The last body of each kind of libxc record, by its name and, for a vCPU's, its number.
        HVM_PARAMS and the P2M are in ``libxc`` instead."""
        self.emulator: libxl.EmulatorContext | None = None
        self.emulator_size = 0
        """Bytes of the device model's state, all of which need not have been kept."""
        self.emulator_keys: libxl.EmulatorXenstoreData | None = None
        self.libxl_bodies: dict[str, bytes] = {}
        """The last body of each other type of libxl record that has one, by its name."""
        self.rounds: list[Round] = []
        self.left_out: list[str] = []
        """What there was no room for, in words."""
        self._state_size = 0
        self._last_gfn = -1
        self._emulator_state = bytearray()
        self._new_round = True
        self._full_batch = 0  # frames in the largest PAGE_DATA record so far

    def xl_header(self, header: xl.Header) -> None:
        self.xl = header

    def libxl_header(self, header: libxl.Header) -> None:
        self.libxl = header

    def record(self, record: Record) -> None:
        super().record(record)
        if len(self.places) < RECORDS_MAX:
            self.places.append(record)
        elif len(self.places) == RECORDS_MAX:
            self._leave_out(f"places of records after the first {RECORDS_MAX}")
        kind = record.layer, record.name
        if kind in self.record_counts or len(self.record_counts) < KINDS_MAX:
            self.record_counts[kind] += 1
            self.record_bytes[kind] += record.length
        else:
            self._leave_out(f"counts of records of more than {KINDS_MAX} kinds")

    def libxc_body(self, record: Record, body: RecordBody, data: memoryview) -> None:
        super().libxc_body(record, body, data)
        if record.type in _PUT_TOGETHER:
            return
        name = record.name
        if record.type in VCPU_RECORDS:
            name = f"{name} {int.from_bytes(data[:4], 'little')}"
        if name in self.state:
            self._state_size -= len(self.state.pop(name).data)
        if self._state_size + len(data) > STATE_MAX:
            self._leave_out(f"{name} of {len(data)} bytes")
            return
        self._state_size += len(data)
        assert self.libxc is not None
        self.state[name] = StateRecord(RecordType(record.type), self.libxc.guest_width, bytes(data))

    def libxl_body(self, record: Record, body: LibxlBody) -> None:
        super().libxl_body(record, body)
        if isinstance(body, libxl.EmulatorXenstoreData):
            self.emulator_keys = body
        else:
            self.libxl_bodies[record.name] = body.encode()

    def emulator_context(self, record: Record, head: libxl.EmulatorContext, size: int) -> None:
        super().emulator_context(record, head, size)
        self.emulator = head
        self.emulator_size = size
        self._emulator_state = bytearray()

    def wants_emulator_state(self) -> bool:
        return True

    def emulator_state(self, piece: bytes | memoryview) -> None:
        super().emulator_state(piece)
        self._emulator_state += piece[: EMULATOR_STATE_MAX - len(self._emulator_state)]
        if self.emulator_size > EMULATOR_STATE_MAX:
            self._leave_out(f"the device model's state after its first {EMULATOR_STATE_MAX} bytes")

    @property
    def device_model_state(self) -> bytes:
        """What EMULATOR_CONTEXT holds behind its sub-header, as far as there was room for it."""
        return bytes(self._emulator_state)

    def page_data(self, record: Record, batch: PageData) -> None:
        super().page_data(record, batch)
        if self._new_round or batch.gfns[0] <= self._last_gfn:
            checkpoint = self.checkpoints + 1 if self.checkpoints else None
            if len(self.rounds) == ROUNDS_MAX:
                self._leave_out(f"rounds of frames after the first {ROUNDS_MAX}")
            else:
                self.rounds.append(Round(checkpoint, record.number, record.number))
        current = self.rounds[-1]
        current.last_record = record.number
        current.frames += batch.count
        current.pages += batch.data_pages
        self._last_gfn = batch.gfns[-1]
        self._full_batch = max(self._full_batch, batch.count)
        self._new_round = batch.count < self._full_batch

    def checkpoint(self, number: int) -> None:
        super().checkpoint(number)
        self._new_round = True

    def _leave_out(self, what: str) -> None:
        if what not in self.left_out and len(self.left_out) < 100:
            self.left_out.append(what)


_PUT_TOGETHER = frozenset({RecordType.HVM_PARAMS, RecordType.X86_PV_P2M_FRAMES})
