"""What a scheduler knows of one domain: its weight, its cap, its budget in each period.

Xen takes these under the scheduler that the domain has only (sched_adjust, sched/core.c),
which is that of its CPU pool and need not be the host's default.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from libxlsr.xen.rawlib import CData
from libxlsr.xen.xenctrl import Xenctrl


class SchedParams(NamedTuple):
    """A domain's share of the processors; None stays as Xen has it.

    ``weight`` is relative to other domains', ``cap`` in percent of one CPU (0: none). ``period``
    and ``budget`` are RTDS's, in microseconds; with ``extratime`` a vCPU may run on when its budget
    is used up.
    """

    weight: int | None = None
    cap: int | None = None
    period: int | None = None
    budget: int | None = None
    extratime: bool | None = None

    def given(self) -> dict[str, int]:
        """Those that are not None."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def set_sched_params(xenctrl: Xenctrl, domid: int, params: SchedParams) -> frozenset[str]:
    """Set what the scheduler of the domain's CPU pool has of the parameters.

    Returns the names of those that it lacks, which were left out, as libxl leaves them out at a
    restore. Raises TargetError for values that Xen doesn't take.
    """
    lib, given = xenctrl.lib, params.given()
    if not given:
        return frozenset()
    scheduler = _scheduler_of(xenctrl, domid)
    if scheduler == lib.XEN_SCHEDULER_CREDIT:
        name, known = "credit", {"weight", "cap"}
        get, put = lib.xc_sched_credit_domain_get, lib.xc_sched_credit_domain_set
    elif scheduler == lib.XEN_SCHEDULER_CREDIT2:
        name, known = "credit2", {"weight", "cap"}
        get, put = lib.xc_sched_credit2_domain_get, lib.xc_sched_credit2_domain_set
    elif scheduler == lib.XEN_SCHEDULER_RTDS:
        name, known = "rtds", {"period", "budget", "extratime"}
        get, put = lib.xc_sched_rtds_domain_get, lib.xc_sched_rtds_domain_set
    else:
        return frozenset(given)
    taken = {key: value for key, value in given.items() if key in known}
    if taken:
        what = ", ".join(f"{key} {int(value)}" for key, value in taken.items())
        doing = f"set the scheduling of domain {domid} ({what})"
        current = xenctrl.ffi.new(f"struct xen_domctl_sched_{name} *")
        xenctrl.check(get(xenctrl.handle, domid, current), f"xc_sched_{name}_domain_get", doing)
        _change(current, taken, extra=lib.XEN_DOMCTL_SCHEDRT_extra)
        xenctrl.check(put(xenctrl.handle, domid, current), f"xc_sched_{name}_domain_set", doing)
    return frozenset(given) - known


def _change(current: CData, taken: dict[str, int], *, extra: int) -> None:
    for key, value in taken.items():
        if key != "extratime":
            setattr(current, key, value)
        elif value:
            current.flags |= extra
        else:
            current.flags &= ~extra


def _scheduler_of(xenctrl: Xenctrl, domid: int) -> int:
    """The XEN_SCHEDULER_* of the domain's CPU pool."""
    lib, doing = xenctrl.lib, f"ask for the scheduler of domain {domid}"
    domain = xenctrl.domain_info(domid)
    if domain is None:
        raise xenctrl.failure("xc_domain_getinfo", doing, number=errno.ESRCH)
    pool = lib.xc_cpupool_getinfo(xenctrl.handle, domain.cpupool)
    if pool == xenctrl.ffi.NULL:
        raise xenctrl.failure("xc_cpupool_getinfo", doing, number=xenctrl.ffi.errno)
    try:
        return int(pool.sched_id)
    finally:
        lib.xc_cpupool_infofree(xenctrl.handle, pool)
