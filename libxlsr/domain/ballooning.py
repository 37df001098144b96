"""Has dom0 give memory up for a domain, as xl's freemem does (xl_vmcontrol.c)."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from libxlsr.domain import memory
from libxlsr.domain.config import DomainConfig
from libxlsr.domain.preflight import hap_of
from libxlsr.domain.undo import Undo
from libxlsr.errors import LibxlsrError, TargetError
from libxlsr.events import Context
from libxlsr.events.chain import Done, Step
from libxlsr.xen.xenctrl import Xenctrl
from libxlsr.xen.xenstore import Transaction, Xenstore

log = logging.getLogger(__name__)

MIN_DOM0_MEMKB = 128 * 1024
"""LIBXL_MIN_DOM0_MEM: dom0 is never ballooned below this."""

BALLOON_TIMEOUT = 10.0
"""Seconds that dom0 has to give up what it is asked for (xl_vmcontrol.c, freemem)."""

BALLOON_ROUNDS = 3
"""How often it is asked for what is then missing: its target may have been above what it had."""

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
        self._rounds_left = BALLOON_ROUNDS
        self._first, self._lowered = self._ask()
        self._undo.push("dom0's memory target", self._put_back)
        self._timer = self._ctx.call_later(0, self._poll)

    def _ask(self) -> tuple[int, int]:
        """Ask dom0 for what is missing; its target before and now, KiB. Raises LibxlsrError."""
        self._rounds_left -= 1
        self._deadline = self._ctx.now() + BALLOON_TIMEOUT
        before, lowered = self._xenstore.transact(self._lower_target)
        log.info("dom0's memory target goes from %d to %d KiB", before, lowered)
        return before, lowered

    def stop(self) -> None:
        """See `Step`."""
        self._timer.deregister()

    def _missing(self) -> int:
        return self._needed - self._xenctrl.physinfo().allocatable_bytes // 1024

    def _lower_target(self, transaction: Transaction) -> tuple[int, int]:
        """Returns what the target was, and what it is now."""
        before = self._dom0_target(transaction)
        missing = max(0, self._missing())  # a domain that is going may have given some back
        target = before - missing
        if target < MIN_DOM0_MEMKB:
            raise TargetError(
                f"{missing} KiB are missing, and dom0 can give up "
                f"{max(0, before - MIN_DOM0_MEMKB)} KiB at the most: it keeps "
                f"{MIN_DOM0_MEMKB // 1024} MiB",
                remedy="free memory by shutting a guest down, or take a host that has more",
            )
        transaction.write(f"{_DOM0_MEMORY}/target", str(target))
        return before, target

    def _put_back(self) -> None:
        def put_back(transaction: Transaction) -> None:
            # Not what somebody else has chosen since.
            if transaction.read(f"{_DOM0_MEMORY}/target") == str(self._lowered):
                transaction.write(f"{_DOM0_MEMORY}/target", str(self._first))

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
            if missing > 0 and self._ctx.now() >= self._deadline:
                self._ask_again(missing)
        except LibxlsrError as error:
            self._done(error)
            return
        if missing <= 0:
            self._done(None)
        else:
            self._timer = self._ctx.call_later(BALLOON_POLL, self._poll)

    def _ask_again(self, missing: int) -> None:
        if not self._rounds_left:
            raise TargetError(
                f"dom0 gave up too little memory within {BALLOON_ROUNDS * BALLOON_TIMEOUT:.0f} s: "
                f"{missing} KiB are missing",
                remedy="free memory with xl mem-set, or by shutting a guest down",
            )
        before, lowered = self._ask()
        if before != self._lowered:  # somebody else has chosen it since
            self._first = before
        self._lowered = lowered


_DOM0_MEMORY = "/local/domain/0/memory"
