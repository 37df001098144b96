"""Which scheduler is asked for what, with a libxenctrl that is made of Python."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any, cast

import cffi
import pytest

from libxlsr.errors import TargetError
from libxlsr.xen.scheduling import SchedParams, set_sched_params
from libxlsr.xen.xenctrl import Xenctrl

CREDIT, CREDIT2, RTDS, NULL = 5, 6, 8, 9  # public/domctl.h
SCHEDULERS = {"credit": CREDIT, "credit2": CREDIT2, "rtds": RTDS}
STRUCTS = """
struct xen_domctl_sched_credit { uint16_t weight; uint16_t cap; };
struct xen_domctl_sched_credit2 { uint16_t weight; uint16_t cap; };
struct xen_domctl_sched_rtds { uint32_t period; uint32_t budget; uint32_t flags; };
struct xc_cpupoolinfo { uint32_t sched_id; };
"""
DOMID, POOL = 7, 3


class Host:
    """The libxenctrl of a host whose pool 3 has ``scheduler``, and in it domain 7."""

    XEN_SCHEDULER_CREDIT = CREDIT
    XEN_SCHEDULER_CREDIT2 = CREDIT2
    XEN_SCHEDULER_RTDS = RTDS
    XEN_DOMCTL_SCHEDRT_extra = 1

    def __init__(self, scheduler: int) -> None:
        self.ffi = cffi.FFI()
        self.ffi.cdef(STRUCTS)
        self.pool: Any = self.ffi.new("struct xc_cpupoolinfo *", {"sched_id": scheduler})
        self.kept: dict[str, int] = {"weight": 256, "cap": 0}
        if scheduler == RTDS:
            self.kept = {"period": 10000, "budget": 4000, "flags": 1}
        self.calls: list[str] = []
        self.lent = 0
        for name, number in SCHEDULERS.items():
            setattr(self, f"xc_sched_{name}_domain_get", self._door(name, number, self._get))
            setattr(self, f"xc_sched_{name}_domain_set", self._door(name, number, self._set))

    def xc_cpupool_getinfo(self, _xch: object, pool: int) -> Any:
        self.calls.append("pool")
        self.lent += 1
        return self.pool if pool == POOL else self.ffi.NULL

    def xc_cpupool_infofree(self, _xch: object, _info: object) -> None:
        self.lent -= 1

    def _door(self, name: str, number: int, what: Any) -> Any:
        def call(_xch: object, domid: int, params: Any) -> int:
            self.calls.append(f"{what.__name__[1:]} {name}")
            if number != self.pool.sched_id or domid != DOMID:  # sched_adjust
                self.ffi.errno = errno.EINVAL
                return -1
            what(params)
            return 0

        return call

    def _get(self, params: Any) -> None:
        for key, value in self.kept.items():
            setattr(params, key, value)

    def _set(self, params: Any) -> None:
        self.kept = {key: getattr(params, key) for key in self.kept}


class OnHost(Xenctrl):
    """A handle on that host."""

    def __init__(self, host: Host) -> None:
        self.ffi, self.lib = cast(Any, host.ffi), cast(Any, host)
        self.log = cast(Any, SimpleNamespace(take_last=lambda: None, raise_parked=lambda: None))
        self._xch = "the handle"

    def domain_info(self, domid: int) -> Any:
        return SimpleNamespace(cpupool=POOL) if domid == DOMID else None


def set_on(host: Host, domid: int = DOMID, **params: Any) -> frozenset[str]:
    return set_sched_params(OnHost(host), domid, SchedParams(**params))


def test_nothing_is_asked_where_nothing_is_set() -> None:
    host = Host(CREDIT2)
    assert set_on(host) == frozenset()
    assert host.calls == []


@pytest.mark.parametrize("name", ["credit", "credit2"])
def test_weight_and_cap(name: str) -> None:
    host = Host(SCHEDULERS[name])
    assert set_on(host, weight=512) == frozenset()
    assert host.kept == {"weight": 512, "cap": 0}
    assert set_on(host, cap=50) == frozenset()
    assert host.kept == {"weight": 512, "cap": 50}
    assert host.calls == 2 * ["pool", f"get {name}", f"set {name}"]
    assert host.lent == 0


def test_period_budget_and_extratime() -> None:
    host = Host(RTDS)
    assert set_on(host, period=20000, budget=5000, extratime=False) == frozenset()
    assert host.kept == {"period": 20000, "budget": 5000, "flags": 0}
    assert set_on(host, extratime=True) == frozenset()
    assert host.kept == {"period": 20000, "budget": 5000, "flags": 1}


@pytest.mark.parametrize(
    ("scheduler", "given", "unknown"),
    [
        (RTDS, {"weight": 256, "cap": 0}, {"weight", "cap"}),
        (CREDIT2, {"weight": 256, "period": 10000}, {"period"}),
        (NULL, {"weight": 256, "budget": 1}, {"weight", "budget"}),
    ],
)
def test_what_the_scheduler_lacks_is_left_out(
    scheduler: int, given: dict[str, int], unknown: set[str]
) -> None:
    host = Host(scheduler)
    assert set_on(host, **given) == unknown
    assert ("set credit2" in host.calls) == (scheduler == CREDIT2)


def test_what_xen_does_not_take_is_named() -> None:
    host = Host(RTDS)

    def refuse(_params: object) -> None:
        host.pool.sched_id = NULL  # from now on every call is EINVAL

    host.xc_sched_rtds_domain_get = host._door("rtds", RTDS, refuse)  # type: ignore[attr-defined]
    with pytest.raises(TargetError, match=r"domain 7 \(period 9, budget 10\)") as caught:
        set_on(host, period=9, budget=10)
    assert (caught.value.call, caught.value.errno) == ("xc_sched_rtds_domain_set", errno.EINVAL)


def test_a_domain_that_is_gone() -> None:
    with pytest.raises(TargetError, match="scheduler of domain 8"):
        set_on(Host(CREDIT), domid=8, weight=1)
