"""The program that runs in the helper's child: libxenguest's blocking restore.

It has a handle of its own on the hypervisor, as libxl's helper has. What libxenguest logs goes up
line by line. A malformed stream may kill it with an assertion: that is why it is a child.
"""

from __future__ import annotations

import errno
import logging
from typing import Any, NoReturn

from libxlsr.errors import LibxlsrError, StreamError, TargetError
from libxlsr.helper.child import Channel
from libxlsr.xen.backend import Backend
from libxlsr.xen.toollog import LogLine, ToolLog, ToolProgress
from libxlsr.xen.xenctrl import Xenctrl
from libxlsr.xen.xenguest import (
    MissingStaticData,
    RestoreRequest,
    cpuid_apply_policy,
    domain_restore,
    reserve_heap,
)


class Callbacks:
    """What libxenguest asks while it restores a plain stream."""

    def __init__(self, channel: Channel, xenctrl: Xenctrl, args: dict[str, Any]) -> None:
        self._channel = channel
        self._xenctrl = xenctrl
        self._args = args

    def static_data_done(self, missing: MissingStaticData) -> None:
        """A stream from before Xen 4.14 has no CPUID policy: derive one as libxl did then."""
        if missing & MissingStaticData.CPUID:
            self._channel.log(logging.INFO, "the stream has no CPUID policy: deriving one")
            cpuid_apply_policy(
                self._xenctrl,
                self._args["domid"],
                pae=self._args["pae"],
                itsc=self._args["itsc"],
                nested=self._args["nested_hvm"],
            )

    def checkpoint(self) -> NoReturn:
        """libxenguest refuses a CHECKPOINT record in a stream that it is told is a plain one."""
        raise AssertionError("the stream was given as a plain one")


CHECKPOINT_FOUND = "checkpoint in non-checkpointed stream"
"""What libxenguest logs of a CHECKPOINT record in what it was told is a plain stream."""


def explained(error: TargetError) -> LibxlsrError:
    """What a failed restore means to whoever asked for it."""
    said = error.last_log or ""
    if CHECKPOINT_FOUND in said:
        return TargetError(
            "checkpointed streams (Remus, COLO) can't be restored into a running domain",
            remedy="restore it offline (--target image), which takes the last whole checkpoint",
        )
    if error.call == "xc_domain_restore" and error.errno is None:
        # No system call and no hypercall has failed: it is the bytes.
        return StreamError(
            said or "libxenguest refused the stream", offset=None, record="LIBXC_CONTEXT"
        )
    if error.errno == errno.EBUSY and "populate physmap" in said:
        # Xen's answer to more pages than xc_domain_setmaxmem allows.
        error.remedy = "the image holds more memory than the configuration gives the domain"
    return error


def run(channel: Channel, backend: Backend | None = None) -> dict[str, Any]:
    """Restore the stream on the fd ``io_fd`` into the domain ``domid``.

    Further arguments: store_port, store_domid, console_port, console_domid, and for a stream
    without a CPUID policy pae, itsc and nested_hvm. Returns store_gfn and console_gfn.
    """

    def on_line(line: LogLine) -> None:
        channel.log(line.level, str(line))

    def on_progress(report: ToolProgress) -> None:
        channel.log(logging.DEBUG, f"{report.doing}: {report.done}/{report.total}")

    log = ToolLog(on_line=on_line, on_progress=on_progress, backend=backend)
    with Xenctrl(log) as xenctrl:
        reserve_heap(xenctrl)
        args = channel.receive_work()
        request = RestoreRequest(
            io_fd=args["io_fd"],
            domid=args["domid"],
            store_evtchn=args["store_port"],
            store_domid=args["store_domid"],
            console_evtchn=args["console_port"],
            console_domid=args["console_domid"],
        )
        try:
            results = domain_restore(xenctrl, request, Callbacks(channel, xenctrl, args))
        except TargetError as error:
            raise explained(error) from None
    return {"store_gfn": results.store_gfn, "console_gfn": results.console_gfn}
