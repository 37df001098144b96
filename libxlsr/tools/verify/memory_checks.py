"""Guest memory: which frames exist, whether all came, and what is odd about them."""

from __future__ import annotations

from collections import Counter, deque
from typing import Protocol

from libxlsr.errors import StreamError
from libxlsr.formats import page_types
from libxlsr.formats.libxc_pv import X86PvP2mFrames
from libxlsr.formats.page_data import PageData
from libxlsr.libxc import rules
from libxlsr.libxc.frame_map import HAS_DATA, NAMED, TYPE_MASK, FrameMap
from libxlsr.libxc.frame_ranges import first_ranges
from libxlsr.libxc.guest import Guest
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
    """Follows the records that describe the memory of ``guest``."""

    def __init__(self, guest: Guest, report: Report) -> None:
        self._guest = guest
        self._report = report
        self.frames = FrameMap()
        self.sent_again = 0
        """Copies of frames that a later one superseded."""
        self._p2m_records: deque[tuple[range, Record]] = deque(maxlen=_P2M_RECORDS_MAX)

    def p2m_frames(self, record: Record, body: X86PvP2mFrames) -> None:
        """A record of the P2M, whose frames it names."""
        named = self._guest.p2m.range_of(body, self._guest.guest_width)
        self._p2m_records.appendleft((named, record))

    def page_data(self, batch: PageData) -> None:
        """A record's frames."""
        gfns = batch.gfns
        if not batch.is_consecutive and len(set(gfns)) != len(gfns):
            gfn, number = Counter(gfns).most_common(1)[0]
            self._report("duplicate-frame", f"frame {gfn:#x} is named {number} times")
        if not self._guest.is_pv and batch.has_page_tables:
            self._report("page-type", "a page table in the memory of an HVM guest")
        self.sent_again += self.frames.add(batch)

    def exists(self, gfn: int) -> bool:
        """Whether a guest frame has memory behind it."""
        byte = self.frames.get(gfn)
        return bool(byte & NAMED) and byte & TYPE_MASK not in _ABSENT

    def finish(self) -> None:
        """Everything came."""
        if self.frames.untracked:
            self._report(
                "frames-untracked", f"{self.frames.untracked} entries were not kept track of"
            )
            converted = self._guest.domain.is_legacy_converted  # names existing frames only
            if not converted and (missing := self.frames.unnamed()):
                self._report(
                    "frames-missing",
                    f"{missing} of those that were kept track of: "
                    f"{first_ranges(self.frames.ranges(_UNNAMED, self.frames.end))}",
                )
        else:
            try:
                rules.frames_missing(self._guest, self.frames)
            except StreamError as error:
                self._report("frames-missing", message_of(error))
        counts = self.frames.counts()
        for finding_id, values in (
            ("frames-without-data", _WITHOUT_DATA),
            ("frames-broken", _BROKEN),
        ):
            if number := sum(counts[value] for value in values):
                shown = first_ranges(self.frames.ranges(values, self.frames.end))
                self._report(finding_id, f"{number} frames: {shown}")
        for index, unusable in rules.p2m_frame_unusable(self._guest, self.frames):
            if self.frames.untracked:
                break
            named = (record for indices, record in self._p2m_records if index in indices)
            self._report("p2m-frame-unusable", message_of(unusable), next(named, None))

    def types(self) -> dict[str, int]:
        """How many frames there are of each type, by its name."""
        counts: Counter[int] = Counter()
        for byte, number in self.frames.counts().items():
            counts[byte & TYPE_MASK] += number
        return {page_types.PAGE_TYPE_NAMES[kind]: counts[kind] for kind in sorted(counts)}
