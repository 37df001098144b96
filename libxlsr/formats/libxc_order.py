"""Which of libxc's records may come when. Fed one record type after another.

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

_T = RecordType

_PV_ONLY = frozenset(
    {
        _T.X86_PV_INFO,
        _T.X86_PV_P2M_FRAMES,
        _T.X86_PV_VCPU_BASIC,
        _T.X86_PV_VCPU_EXTENDED,
        _T.X86_PV_VCPU_XSAVE,
        _T.X86_PV_VCPU_MSRS,
        _T.SHARED_INFO,
    }
)
_HVM_ONLY = frozenset({_T.HVM_CONTEXT, _T.HVM_PARAMS})
_V3_ONLY = frozenset({_T.STATIC_DATA_END, _T.X86_CPUID_POLICY, _T.X86_MSR_POLICY})
_ONCE = frozenset({_T.X86_PV_INFO, _T.STATIC_DATA_END, _T.END})
_REFUSED: dict[int, str] = {
    _T.TOOLSTACK: "a TOOLSTACK record, which no release of Xen writes or reads",
    _T.CHECKPOINT_DIRTY_PFN_LIST: "a record of COLO's back channel",
}
# For each record, what must have come before it.
_PV_NEEDS: dict[int, tuple[RecordType, ...]] = {
    _T.X86_PV_P2M_FRAMES: (_T.X86_PV_INFO,),
    _T.PAGE_DATA: (_T.X86_PV_P2M_FRAMES,),
    _T.VERIFY: (_T.PAGE_DATA,),
    _T.SHARED_INFO: (_T.X86_PV_INFO,),
    _T.X86_PV_VCPU_BASIC: (_T.X86_PV_INFO, _T.PAGE_DATA),
    _T.X86_PV_VCPU_EXTENDED: (_T.X86_PV_INFO, _T.PAGE_DATA),
    _T.X86_PV_VCPU_XSAVE: (_T.X86_PV_INFO, _T.PAGE_DATA),
    _T.X86_PV_VCPU_MSRS: (_T.X86_PV_INFO, _T.PAGE_DATA),
}
_HVM_NEEDS: dict[int, tuple[RecordType, ...]] = {_T.VERIFY: (_T.PAGE_DATA,)}
_PV_WHOLE = (
    _T.X86_PV_INFO,
    _T.X86_PV_P2M_FRAMES,
    _T.PAGE_DATA,
    _T.X86_TSC_INFO,
    _T.SHARED_INFO,
    _T.X86_PV_VCPU_BASIC,
)
_HVM_WHOLE = (_T.PAGE_DATA, _T.X86_TSC_INFO, _T.HVM_CONTEXT, _T.HVM_PARAMS)
# Memory and what describes it: not before the static data is complete. libxenguest takes a policy
# that comes later, and never applies it.
_AFTER_STATIC_DATA = frozenset({_T.PAGE_DATA, _T.X86_PV_P2M_FRAMES, _T.CHECKPOINT, _T.END})
_POLICIES = frozenset({_T.X86_CPUID_POLICY, _T.X86_MSR_POLICY})


class RecordOrder:
    """Follows the records of one image. ``version`` is the image header's."""

    def __init__(
        self, version: int, domain_header: DomainHeader, *, checkpointed: bool = False
    ) -> None:
        self._version = version
        self._pv = domain_header.is_pv
        # The legacy format had a TSC chunk and parameters only where they weren't the default.
        self._whole = tuple(
            record
            for record in (_PV_WHOLE if self._pv else _HVM_WHOLE)
            if not domain_header.is_legacy_converted
            or record not in (_T.X86_TSC_INFO, _T.HVM_PARAMS)
        )
        self._checkpointed = checkpointed
        self._seen: set[int] = set()
        self._vcpu0_seen = False
        self._previous: int | None = None

    def check(self, record_type: int, offset: int) -> None:
        """Accept the record as the next one, or raise StreamError. Optional records are taken
        anywhere before END."""
        if record_type == self._previous and record_type not in _ONCE:
            return  # as nearly all are: one PAGE_DATA after the other
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
        name = record_name(record_type)
        if record_type in _REFUSED:
            return _REFUSED[record_type]
        if record_type in (_HVM_ONLY if self._pv else _PV_ONLY):
            return f"{name} in the image of {'a PV' if self._pv else 'an HVM'} domain"
        if self._version < 3 and record_type in _V3_ONLY:
            return f"the image has version {self._version}, and {name} came with version 3"
        if record_type in _ONCE and record_type in seen:
            return f"a second {name}"
        static_data_ended = self._version < 3 or _T.STATIC_DATA_END in seen
        if record_type in _AFTER_STATIC_DATA and not static_data_ended:
            return f"{name} before STATIC_DATA_END"
        if record_type in _POLICIES and static_data_ended:
            return f"{name} after STATIC_DATA_END"
        for needed in (_PV_NEEDS if self._pv else _HVM_NEEDS).get(record_type, ()):
            if needed not in seen:
                return f"{name} before {needed.name}"
        if record_type == _T.CHECKPOINT and not self._checkpointed:
            return "a CHECKPOINT in a stream without checkpoints"
        if record_type in (_T.END, _T.CHECKPOINT):
            return self.incomplete()
        return None

    def incomplete(self) -> str | None:
        """What a domain still lacks after the records so far, in words; None if nothing."""
        missing = [record.name for record in self._whole if record not in self._seen]
        if missing:
            return f"the domain is not complete: no {', no '.join(missing)} before"
        if self._pv and not self._vcpu0_seen:
            return "the domain is not complete: no X86_PV_VCPU_BASIC of vCPU 0 before"
        return None
