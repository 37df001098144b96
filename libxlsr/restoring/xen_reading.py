"""The part of a restore into a domain in which libxenguest reads the libxc stream, in its child."""

from __future__ import annotations

import contextlib
import os

from libxlsr.domain.cpu_policy import set_cpu_policy
from libxlsr.domain.host import XenHost
from libxlsr.domain.new_domain import NewDomain
from libxlsr.domain.save_helper.parent import RestoreHelper, Rings, RingsDone, rewind
from libxlsr.errors import LibxlsrError, as_error
from libxlsr.events import Context, Timer
from libxlsr.restoring.target import TargetHooks
from libxlsr.stream.libxc_stream import LibxcStream
from libxlsr.xen.xenctrl import Xenctrl

PROGRESS_INTERVAL = 0.2
"""Seconds between two looks at how far it is."""


class XenReading:
    """libxenguest's read of one stream into a domain.

    Meanwhile the rest of the system is told of the domain, and how far it is is looked at: the
    child shares the file offset, and Xen tells what memory the domain has.
    """

    def __init__(
        self,
        ctx: Context,
        host: XenHost,
        xenctrl: Xenctrl,
        domain: NewDomain,
        helper: RestoreHelper,
        stream: LibxcStream,
        hooks: TargetHooks,
    ) -> None:
        """Raises LibxlsrError and OSError where the stream can't be read from here, or where the
        host can't give the guest its CPU."""
        self._domain = domain
        self._helper = helper
        self._stream = stream
        self._hooks = hooks
        self._start = rewind(stream)
        if self._start is not None:
            set_cpu_policy(
                xenctrl, domain.domid, stream.fd, self._start, host_vendor=host.cpu_vendor()
            )
        self._timer = Timer(ctx)

    def start(self, done: RingsDone) -> None:
        """``done(rings, error)`` comes once, from the event loop."""

        def ended(rings: Rings | None, error: LibxlsrError | None) -> None:
            self._report_progress()
            self._timer.stop()
            done(rings, error)

        self._helper.read(
            self._stream, self._domain.state, self._domain.config, self._hooks.log, ended
        )
        self._look_again()
        try:
            self._domain.describe()
        except Exception as error:
            self._helper.abort(as_error(error, "describe the domain"))

    def abort(self, reason: LibxlsrError) -> None:
        """Stop it; *done* comes with an error."""
        self._helper.abort(reason)

    @property
    def consumed(self) -> int | None:
        """Bytes that were read by now; None on a pipe, of which only libxenguest knows."""
        if self._start is None:
            return None
        return os.lseek(self._stream.fd, 0, os.SEEK_CUR) - self._start

    def _look_again(self) -> None:
        self._timer.set(PROGRESS_INTERVAL, self._look)

    def _look(self) -> None:
        self._report_progress()
        self._look_again()

    def _report_progress(self) -> None:
        counters = {}
        consumed = self.consumed
        if consumed is not None:
            counters["bytes"] = consumed
        with contextlib.suppress(LibxlsrError):  # the next look will tell
            frames = self._domain.frames()
            if frames is not None:
                counters["frames"] = frames
        if counters:
            self._hooks.progress(counters)
