"""How much memory a domain needs, and how it is made available.

Xen's own need for a domain is small but real: without room for it the restore fails half-way.
"""

from __future__ import annotations

from libxlsr.errors import LibxlsrError, TargetError
from libxlsr.events import Context
from libxlsr.targets.base import Done
from libxlsr.targets.xen.config import DomainConfig
from libxlsr.xen.hostinfo import PhysInfo
from libxlsr.xen.xenctrl import Xenctrl
from libxlsr.xen.xenstore import Transaction, Xenstore

MIN_DOM0_MEMKB = 128 * 1024
"""LIBXL_MIN_DOM0_MEM: dom0 is never ballooned below this."""

BALLOON_TIMEOUT = 30.0
"""Seconds that dom0 has to give memory up (xl_vmcontrol.c, freemem)."""

BALLOON_POLL = 0.1

_PAGE_ROUND = 2 * 1024


def paging_memkb(config: DomainConfig, hap: bool) -> int:
    """The paging pool, KiB (libxl__get_required_paging_memory): 1 MiB a vCPU, a page a MiB for
    the P2M of a guest that is not PV, and another where pages are shadowed."""
    if config.shadow_memkb is not None:
        return config.shadow_memkb
    pages_per_mib = (config.domain_type != "pv") + (not hap)
    return 4 * (256 * config.max_vcpus + pages_per_mib * (config.max_memkb // 1024))


def needed_memkb(config: DomainConfig, hap: bool) -> int:
    """What the domain takes from the host, KiB, a multiple of 2 MiB
    (libxl__domain_need_memory_calculate)."""
    extra = 2048 if config.hvm else 1024
    need = config.target_memkb + paging_memkb(config, hap) + extra
    return -(-need // _PAGE_ROUND) * _PAGE_ROUND


def missing_memkb(config: DomainConfig, host: PhysInfo, hap: bool) -> int:
    """How much of it the host lacks, KiB; 0 where it has enough."""
    return max(0, needed_memkb(config, hap) - host.allocatable_bytes // 1024)


class Ballooning:
    """The step that asks dom0 for memory and waits until the host has enough."""

    def __init__(
        self,
        ctx: Context,
        xenctrl: Xenctrl,
        xenstore: Xenstore,
        needed: int,
    ) -> None:
        self._ctx = ctx
        self._xenctrl = xenctrl
        self._xenstore = xenstore
        self._needed = needed

    def start(self, done: Done) -> None:
        """See `Step`."""
        self._done = done
        self._deadline = self._ctx.now() + BALLOON_TIMEOUT
        self._xenstore.transact(self._lower_target)
        self._timer = self._ctx.call_later(0, self._poll)

    def stop(self) -> None:
        """See `Step`."""
        self._timer.deregister()

    def _missing(self) -> int:
        return self._needed - self._xenctrl.physinfo().allocatable_bytes // 1024

    def _lower_target(self, transaction: Transaction) -> None:
        target = self._dom0_target(transaction) - self._missing()
        if target < MIN_DOM0_MEMKB:
            raise TargetError(
                f"dom0 would be left with {target // 1024} MiB, the least is "
                f"{MIN_DOM0_MEMKB // 1024} MiB",
                remedy=_REMEDY,
            )
        transaction.write(f"{_DOM0_MEMORY}/target", str(target))

    def _dom0_target(self, transaction: Transaction) -> int:
        """What dom0 is to have, KiB. Until that is changed for the first time xenstore doesn't say
        so: it gets what dom0 has, and its maximum, on which libxl relies later
        (libxl__fill_dom0_memory_info)."""
        text = transaction.read(f"{_DOM0_MEMORY}/target") or ""
        if text.isdigit():
            return int(text)
        dom0 = self._xenctrl.domain_info(0)
        assert dom0 is not None
        transaction.write(f"{_DOM0_MEMORY}/static-max", str(dom0.max_bytes // 1024))
        return dom0.total_bytes // 1024

    def _poll(self) -> None:
        try:
            missing = self._missing()
        except LibxlsrError as error:
            self._done(error)
            return
        if missing <= 0:
            self._done(None)
        elif self._ctx.now() >= self._deadline:
            self._done(
                TargetError(
                    f"dom0 gave up too little memory within {BALLOON_TIMEOUT:.0f} s: "
                    f"{missing} KiB are missing",
                    remedy=_REMEDY,
                )
            )
        else:
            self._timer = self._ctx.call_later(BALLOON_POLL, self._poll)


_DOM0_MEMORY = "/local/domain/0/memory"
_REMEDY = "free memory with xl mem-set, or by shutting a guest down"
