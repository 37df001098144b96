"""libxenguest: the blocking restore of a libxc stream, and a domain's CPU policy.

``domain_restore`` calls back into Python from C. What a callback raises is kept, C is told to
stop, and the exception is raised again once the call has returned.
"""

from __future__ import annotations

import enum
from typing import Callable, NamedTuple, Protocol

from libxlsr.errors import TargetError
from libxlsr.xen.backend import Backend
from libxlsr.xen.rawlib import CData
from libxlsr.xen.xenctrl import Xenctrl

RESTORE_HEAP = 5 << 20
"""Bytes that libxenguest holds at a time of a plain stream, at the most: a batch of 1,024 pages
(MAX_BATCH_SIZE, xg_sr_common.h), and lists of its frames."""


class StreamType(enum.IntEnum):
    """``xc_stream_type_t``, but for COLO."""

    PLAIN = 0
    REMUS = 1


class MissingStaticData(enum.IntFlag):
    """What an old stream lacks (``XGR_SDD_MISSING_*``)."""

    CPUID = 1
    MSR = 2


class RestoreCallbacks(Protocol):
    """``struct restore_callbacks``, but for COLO's.

    What a method raises ends the restore and comes out of it.
    """

    def static_data_done(self, missing: MissingStaticData) -> None:
        """The stream's STATIC_DATA_END has come, or been inferred."""

    def checkpoint(self) -> int:
        """Remus: a CHECKPOINT record has come. Returns an ``XGR_CHECKPOINT_*`` number."""


class RestoreRequest(NamedTuple):
    """Where a libxc stream comes from and goes to. ``io_fd`` must be in blocking mode."""

    io_fd: int
    domid: int
    store_evtchn: int
    store_domid: int
    console_evtchn: int
    console_domid: int
    stream_type: StreamType = StreamType.PLAIN


class RestoreResults(NamedTuple):
    """The guest frames of xenstore's and the console's rings."""

    store_gfn: int
    console_gfn: int


class _Payload:
    """What ``void *data`` stands for during one restore."""

    def __init__(self, callbacks: RestoreCallbacks) -> None:
        self.callbacks = callbacks
        self.failure: BaseException | None = None

    def call(self, answer: Callable[[], int], on_failure: int) -> int:
        try:
            return answer()
        except BaseException as failure:  # no exception may cross C
            if self.failure is None:
                self.failure = failure
            return on_failure


def reserve_heap(xenctrl: Xenctrl) -> None:
    """Have the heap hold what a restore will need, and keep it.

    libxenguest allocates each record anew. Left to itself the C library maps and unmaps the first
    of them, and each new page is a fault that in a paravirtual dom0 goes through the hypervisor.
    For a process that does nothing else.
    """
    xenctrl.lib.xlsr_reserve_heap(RESTORE_HEAP)


def domain_restore(
    xenctrl: Xenctrl, request: RestoreRequest, callbacks: RestoreCallbacks
) -> RestoreResults:
    """``xc_domain_restore``: read a libxc stream from the fd up to its END record, and no further.

    Blocks until then, without holding the interpreter's lock. Raises what a callback raised, or
    ``TargetError`` with libxenguest's last log lines, and with an errno unless it is the bytes
    that libxenguest refused. A malformed stream can make it abort the process: call it in one
    that may die.
    """
    _bind(xenctrl.log.backend)
    ffi, lib = xenctrl.log.backend
    payload = _Payload(callbacks)
    handle = ffi.new_handle(payload)
    store_gfn = ffi.new("unsigned long *")
    console_gfn = ffi.new("unsigned long *")
    ffi.errno = 0  # libxenguest leaves it alone where it is the bytes that are wrong
    result = lib.xlsr_domain_restore(
        xenctrl.handle,
        request.io_fd,
        request.domid,
        request.store_evtchn,
        store_gfn,
        request.store_domid,
        request.console_evtchn,
        console_gfn,
        request.console_domid,
        int(request.stream_type),
        handle,
    )
    number = ffi.errno
    if payload.failure is not None:
        raise payload.failure
    xenctrl.log.raise_parked()
    if result != 0:
        raise TargetError(
            f"libxenguest could not restore domain {request.domid}",
            errno=number or None,
            call="xc_domain_restore",
            last_log=xenctrl.log.take_last(),
        )
    return RestoreResults(int(store_gfn[0]), int(console_gfn[0]))


def cpuid_apply_policy(
    xenctrl: Xenctrl, domid: int, *, pae: bool = True, itsc: bool = False, nested: bool = False
) -> None:
    """Give a restored domain the CPUID policy that libxl derives for a stream without one.

    ``restore`` is set: Xen then keeps features off that the guest could not have seen on a Xen
    before 4.14 (xenctrl.h, ``xc_cpuid_apply_policy``).
    """
    ffi, lib = xenctrl.ffi, xenctrl.lib
    null = ffi.NULL
    result = lib.xc_cpuid_apply_policy(
        xenctrl.handle, domid, True, null, 0, pae, itsc, nested, null, null
    )
    xenctrl.check(result, "xc_cpuid_apply_policy", f"make a CPUID policy for domain {domid}")


class PolicyRefused(NamedTuple):
    """Which entry of a CPU policy the host can't give: a CPUID leaf or an MSR."""

    errno: int
    leaf: int | None
    subleaf: int | None
    msr: int | None

    def __str__(self) -> str:
        if self.leaf is not None:
            where = f"CPUID leaf {self.leaf:#x}"
            return where if self.subleaf is None else f"{where}, subleaf {self.subleaf:#x}"
        if self.msr is not None:
            return f"MSR {self.msr:#x}"
        return "the policy as a whole"


def set_domain_cpu_policy(
    xenctrl: Xenctrl, domid: int, leaves: bytes, msrs: bytes
) -> PolicyRefused | None:
    """``xc_set_domain_cpu_policy`` with the bodies of X86_CPUID_POLICY and X86_MSR_POLICY.

    The records hold arrays of ``xen_cpuid_leaf_t`` (24 bytes) and ``xen_msr_entry_t`` (16 bytes).
    Returns None where the host can give the policy, else what it refused.
    """
    ffi, lib = xenctrl.ffi, xenctrl.lib
    nr_leaves, nr_msrs = len(leaves) // 24, len(msrs) // 16
    c_leaves = ffi.new("xen_cpuid_leaf_t[]", max(nr_leaves, 1))
    c_msrs = ffi.new("xen_msr_entry_t[]", max(nr_msrs, 1))
    ffi.buffer(c_leaves)[: 24 * nr_leaves] = leaves[: 24 * nr_leaves]
    ffi.buffer(c_msrs)[: 16 * nr_msrs] = msrs[: 16 * nr_msrs]
    none = 0xFFFFFFFF  # what libxc leaves there for "not this one"
    wrong = [ffi.new("uint32_t *", none) for _ in range(3)]
    result = lib.xc_set_domain_cpu_policy(
        xenctrl.handle, domid, nr_leaves, c_leaves, nr_msrs, c_msrs, *wrong
    )
    if result == 0:
        return None
    number = ffi.errno
    xenctrl.log.take_last()
    leaf, subleaf, msr = (None if item[0] == none else int(item[0]) for item in wrong)
    return PolicyRefused(number, leaf, subleaf, msr)


_bound: Backend | None = None


def _bind(backend: Backend) -> None:
    """Give the extern "Python" callbacks of the compiled module their bodies, once."""
    global _bound
    if _bound is backend:
        return
    ffi, lib = backend

    def payload_of(handle: CData) -> _Payload:
        payload: _Payload = ffi.from_handle(handle)
        return payload

    @ffi.def_extern(name="xlsr_restore_static_data_done", error=-1)
    def static_data_done(missing: int, handle: CData) -> int:
        payload = payload_of(handle)

        def answer() -> int:
            payload.callbacks.static_data_done(MissingStaticData(missing))
            return 0

        return payload.call(answer, on_failure=-1)

    @ffi.def_extern(name="xlsr_restore_checkpoint", error=lib.XGR_CHECKPOINT_ERROR)
    def checkpoint(handle: CData) -> int:
        payload = payload_of(handle)
        return payload.call(payload.callbacks.checkpoint, on_failure=lib.XGR_CHECKPOINT_ERROR)

    _bound = backend
