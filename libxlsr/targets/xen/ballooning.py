"""Has dom0 give memory up for a domain, as xl's freemem does (xl_vmcontrol.c)."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from libxlsr.errors import LibxlsrError, TargetError
from libxlsr.events import Context
from libxlsr.targets.base import Done
from libxlsr.targets.xen import memory
from libxlsr.targets.xen.config import DomainConfig
from libxlsr.targets.xen.preflight import hap_of
from libxlsr.targets.xen.steps import Step
from libxlsr.targets.xen.undo import Undo
from libxlsr.xen.xenctrl import Xenctrl
from libxlsr.xen.xenstore import Transaction, Xenstore

log = logging.getLogger(__name__)

MIN_DOM0_MEMKB = 128 * 1024
"""LIBXL_MIN_DOM0_MEM: dom0 is never ballooned below this."""

BALLOON_TIMEOUT = 30.0
"""Seconds that dom0 has to give memory up (xl_vmcontrol.c, freemem)."""

BALLOON_POLL = 0.1


def ballooning(
    ctx: Context, xenctrl: Xenctrl, xenstore: Xenstore, config: DomainConfig, undo: Undo
) -> Iterator[Step]:
    """The step that makes room for the domain, where it takes one."""
    host = xenctrl.physinfo()
    hap = hap_of(config, host)
    if memory.missing_memkb(config, host, hap):
        needed = memory.needed_memkb(config, hap)
        yield Ballooning(ctx, xenctrl, xenstore, undo, needed=needed)


class Ballooning:
    """The step that asks dom0 for memory and waits until the host has enough (``needed``, KiB).

    Unlike xl's, it puts dom0's target back when the restore fails.
    """

    def __init__(
        self, ctx: Context, xenctrl: Xenctrl, xenstore: Xenstore, undo: Undo, *, needed: int
    ) -> None:
        self._ctx = ctx
        self._xenctrl = xenctrl
        self._xenstore = xenstore
        self._undo = undo
        self._needed = needed

    def start(self, done: Done) -> None:
        """See `Step`."""
        self._done = done
        self._deadline = self._ctx.now() + BALLOON_TIMEOUT
        before, lowered = self._xenstore.transact(self._lower_target)
        log.info("dom0's memory target goes from %d to %d KiB", before, lowered)
        self._undo.push("dom0's memory target", lambda: self._put_back(before, lowered))
        self._timer = self._ctx.call_later(0, self._poll)

    def stop(self) -> None:
        """See `Step`."""
        self._timer.deregister()

    def _missing(self) -> int:
        return self._needed - self._xenctrl.physinfo().allocatable_bytes // 1024

    def _lower_target(self, transaction: Transaction) -> tuple[int, int]:
        """Returns what the target was, and what it is now."""
        before = self._dom0_target(transaction)
        target = before - self._missing()
        if target < MIN_DOM0_MEMKB:
            raise TargetError(
                f"dom0 would be left with {target // 1024} MiB, the least is "
                f"{MIN_DOM0_MEMKB // 1024} MiB",
                remedy=_REMEDY,
            )
        transaction.write(f"{_DOM0_MEMORY}/target", str(target))
        return before, target

    def _put_back(self, before: int, lowered: int) -> None:
        def put_back(transaction: Transaction) -> None:
            # Not what somebody else has chosen since.
            if transaction.read(f"{_DOM0_MEMORY}/target") == str(lowered):
                transaction.write(f"{_DOM0_MEMORY}/target", str(before))

        self._xenstore.transact(put_back)

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
