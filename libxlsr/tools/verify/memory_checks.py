"""Guest memory: which frames exist, whether all came, what a PV guest's P2M and tables point to."""

from __future__ import annotations

from array import array
from collections import Counter, deque
from typing import Protocol

from libxlsr.errors import StreamError
from libxlsr.formats import page_types
from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.formats.libxc_pv import X86PvP2mFrames
from libxlsr.formats.page_data import PageData
from libxlsr.formats.pv_page_table import check_table
from libxlsr.libxc.frame_map import HAS_DATA, NAMED, TYPE_MASK, FrameMap
from libxlsr.libxc.frame_ranges import first_ranges
from libxlsr.libxc.visitor import Record
from libxlsr.tools.verify.findings import message_of

_WITHOUT_DATA = bytes([NAMED | page_types.XEN_DOMCTL_PFINFO_XALLOC])
_UNNAMED = b"\0"
_BROKEN = bytes(
    NAMED | page_types.XEN_DOMCTL_PFINFO_BROKEN | had_data for had_data in (0, HAS_DATA)
)
_ABSENT = (page_types.XEN_DOMCTL_PFINFO_XTAB, page_types.XEN_DOMCTL_PFINFO_BROKEN)

_P2M_RECORDS_MAX = 16
"""Records of the P2M that are remembered, the last of them. Senders write one."""


class Report(Protocol):
    """Takes a finding."""

    def __call__(self, finding_id: str, message: str, record: Record | None = None) -> None:
        """``record``: where it is, if not at the record that is being looked at."""


class MemoryChecks:
    """Follows the records that describe memory; ``pv`` is the domain header's type of guest."""

    def __init__(self, pv: bool, report: Report) -> None:
        self._pv = pv
        self._report = report
        self.frames = FrameMap()
        self.sent_again = 0
        """Copies of frames that a later one superseded."""
        self.p2m_covered = 0
        self._p2m = array("I")
        self._p2m_records: deque[tuple[range, Record]] = deque(maxlen=_P2M_RECORDS_MAX)
        self._guest_width = 8

    def guest_width(self, width: int) -> None:
        """X86_PV_INFO said how wide a P2M entry is, in bytes."""
        self._guest_width = width

    def p2m_frames(self, record: Record, body: X86PvP2mFrames) -> None:
        """X86_PV_P2M_FRAMES. Raises StreamError for a gap."""
        self.p2m_covered = body.extend(self.p2m_covered, record.body_offset)
        first = body.start_pfn // (PAGE_SIZE // self._guest_width)
        self._p2m[first : first + len(body.p2m_pfns)] = array("I", body.p2m_pfns)
        self._p2m_records.appendleft((range(first, first + len(body.p2m_pfns)), record))

    def whole_p2m(self) -> X86PvP2mFrames:
        """All records of the P2M that came, as one."""
        return X86PvP2mFrames(0, self.p2m_covered - 1, tuple(self._p2m))

    def page_data(self, batch: PageData) -> None:
        """A record's frames."""
        gfns = batch.gfns
        if not batch.is_consecutive and len(set(gfns)) != len(gfns):
            gfn, number = Counter(gfns).most_common(1)[0]
            self._report("duplicate-frame", f"frame {gfn:#x} is named {number} times")
        if self._pv and batch.highest >= self.p2m_covered:
            self._report(
                "frame-beyond-p2m",
                f"frame {batch.highest:#x}, expected less than {self.p2m_covered:#x}, "
                "where the P2M ends",
            )
        if not self._pv and batch.has_page_tables:
            self._report("page-type", "a page table in the memory of an HVM guest")
        self.sent_again += self.frames.add(batch)

    def page_tables(self, first_gfn: int, data: bytes | memoryview) -> None:
        """The contents of page tables, of any level."""
        for number in range(len(data) // PAGE_SIZE):
            table = data[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]
            try:
                check_table(table, first_gfn + number, self.p2m_covered, None)
            except StreamError as error:
                self._report("pte-beyond-p2m", message_of(error))

    def exists(self, gfn: int) -> bool:
        """Whether a guest frame has memory behind it."""
        byte = self.frames.get(gfn)
        return bool(byte & NAMED) and byte & TYPE_MASK not in _ABSENT

    def finish(self, *, all_frames_named: bool) -> None:
        """Everything came. ``all_frames_named``: the sender is one that leaves out no frame."""
        if self.frames.untracked:
            self._report(
                "frames-untracked", f"{self.frames.untracked} entries were not kept track of"
            )
            if all_frames_named and (missing := self.frames.unnamed()):
                self._report(
                    "frames-missing",
                    f"{missing} of those that were kept track of: "
                    f"{first_ranges(self.frames.ranges(_UNNAMED, self.frames.end))}",
                )
        elif all_frames_named:
            self._check_gaps()
        counts = self.frames.counts()
        for finding_id, values in (
            ("frames-without-data", _WITHOUT_DATA),
            ("frames-broken", _BROKEN),
        ):
            if number := sum(counts[value] for value in values):
                shown = first_ranges(self.frames.ranges(values, self.frames.end))
                self._report(finding_id, f"{number} frames: {shown}")
        if self._pv:
            self._check_p2m_frames()

    def types(self) -> dict[str, int]:
        """How many frames there are of each type, by its name."""
        counts: Counter[int] = Counter()
        for byte, number in self.frames.counts().items():
            counts[byte & TYPE_MASK] += number
        return {page_types.PAGE_TYPE_NAMES[kind]: counts[kind] for kind in sorted(counts)}

    def _check_gaps(self) -> None:
        end = self.p2m_covered if self._pv else self.frames.end
        if missing := end - self.frames.named(end):
            shown = first_ranges(self.frames.gaps(end))
            self._report("frames-missing", f"{missing} of {end} frames: {shown}")

    def _check_p2m_frames(self) -> None:
        ordinary = NAMED | HAS_DATA | page_types.XEN_DOMCTL_PFINFO_NOTAB
        for index, pfn in enumerate(self._p2m):
            if self.frames.get(pfn) != ordinary and not self.frames.untracked:
                self._report(
                    "p2m-frame-unusable",
                    f"frame {index} of the P2M is at pfn {pfn:#x}, which is no ordinary frame "
                    "with contents",
                    next((record for named, record in self._p2m_records if index in named), None),
                )
