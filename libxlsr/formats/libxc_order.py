"""Which of libxc's records may come when. Fed one record type after another; what it knows of each
is in its row (records.py).

::

    PV    X86_PV_INFO  [policies]  STATIC_DATA_END  P2M_FRAMES+  PAGE_DATA+
          TSC_INFO  SHARED_INFO  ( VCPU_BASIC  [EXTENDED]  [XSAVE]  [MSRS] )+  END
    HVM   [policies]  STATIC_DATA_END  PAGE_DATA+  TSC_INFO  HVM_CONTEXT  HVM_PARAMS  END

So do real senders write (xg_sr_save.c). What depends on nothing may stand elsewhere, and is taken
there. A v2 image (Xen 4.6 to 4.13) has no policies and no STATIC_DATA_END. The spec wants
HVM_PARAMS before HVM_CONTEXT; every Xen writes them the other way round, and libxenguest applies
the context last in either case, so both orders are right. In a checkpointed stream each state of
the domain ends with CHECKPOINT, which needs what END needs.

Sources: docs/specs/libxc-migration-stream.pandoc, "Layout"; xg_sr_restore.c, xg_sr_restore_x86_pv.c
and xg_sr_restore_x86_hvm.c in tools/libs/guest.
"""

from __future__ import annotations

from libxlsr.errors import StreamError
from libxlsr.formats.framing import REC_TYPE_OPTIONAL
from libxlsr.formats.libxc import DomainHeader, RecordType, record_name
from libxlsr.formats.records import LIBXC, LibxcRow, Once

_T = RecordType

_NOT_IN_EVERY_LEGACY_IMAGE = frozenset({_T.X86_TSC_INFO, _T.HVM_PARAMS})
"""The format of Xen 4.5 and older had a TSC chunk and parameters only where they weren't the
default."""


class RecordOrder:
    """Follows the records of one image. ``version`` is the image header's."""

    def __init__(
        self, version: int, domain_header: DomainHeader, *, checkpointed: bool = False
    ) -> None:
        self._version = version
        self._pv = domain_header.is_pv
        self._guest = "pv" if self._pv else "hvm"  # PVH's image is as HVM's
        converted = domain_header.is_legacy_converted
        self._required = tuple(
            row
            for row in LIBXC.values()
            if row.required
            and self._has(row)
            and not (converted and row.type in _NOT_IN_EVERY_LEGACY_IMAGE)
        )
        self._checkpointed = checkpointed
        self._seen: set[int] = set()
        self._vcpu0_seen = False
        self._previous: int | None = None

    def check(self, record_type: int, offset: int) -> None:
        """Accept the record as the next one, or raise StreamError. Optional records are taken
        anywhere before END."""
        if record_type == self._previous == _T.PAGE_DATA:
            return  # as nearly all are: one after the other
        problem = self._problem(record_type)
        if problem is not None:
            raise StreamError(problem, offset=offset, record=record_name(record_type))
        self._seen.add(record_type)
        self._previous = record_type

    def vcpu_basic(self, vcpu_id: int) -> None:
        """Tell of an X86_PV_VCPU_BASIC record's vCPU: a PV domain can't start without vCPU 0."""
        self._vcpu0_seen |= vcpu_id == 0

    def assume(self, record_type: int) -> None:
        """Go on as if a record that was refused had been right, to look at what follows it."""
        self._seen.add(record_type)
        self._previous = None

    def _problem(self, record_type: int) -> str | None:
        seen = self._seen
        if _T.END in seen:
            return "a record after END"
        if record_type & REC_TYPE_OPTIONAL:
            return None
        row = LIBXC[record_type]
        name = row.name
        if row.refused is not None:
            return row.refused
        if self._guest not in row.guests:
            return f"{name} in the image of {'a PV' if self._pv else 'an HVM'} domain"
        if self._version < row.since:
            return (
                f"the image has version {self._version}, and {name} came with version {row.since}"
            )
        if row.once is Once.IMAGE and record_type in seen:
            return f"a second {name}"
        if row.before is not None and row.before in seen:
            return f"{name} after {row.before.name}"
        for needed in row.needs:
            if needed not in seen and self._has(LIBXC[needed]):
                return f"{name} before {needed.name}"
        if record_type == _T.CHECKPOINT and not self._checkpointed:
            return "a CHECKPOINT in a stream without checkpoints"
        if record_type in (_T.END, _T.CHECKPOINT):
            return self.incomplete()
        return None

    def _has(self, row: LibxcRow) -> bool:
        """Whether images of this version and of such a guest have the record."""
        return self._guest in row.guests and self._version >= row.since

    def incomplete(self) -> str | None:
        """What a domain still lacks after the records so far, in words; None if nothing."""
        missing = [row.name for row in self._required if row.type not in self._seen]
        if missing:
            return f"the domain is not complete: no {', no '.join(missing)} before"
        if self._pv and not self._vcpu0_seen:
            return "the domain is not complete: no X86_PV_VCPU_BASIC of vCPU 0 before"
        return None
