"""Attaches a domain's devices, and takes everything of theirs back.

Both are libxenlight's work, in children (docs/decisions/devices-through-libxenlight.md). The undo,
in its order: the child that attaches is ended and waited for; the scripts that it left running are
killed; libxl destroys the domain, which runs the scripts that take back what they had set up; loop
devices that a killed script could not write down are detached.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Callable

from libxlsr.domain.devices import hotplug
from libxlsr.domain.devices.destruction import destroy
from libxlsr.domain.devices.plan import Device, Plan, batch_words, batches
from libxlsr.domain.host import XenHost
from libxlsr.domain.undo import summary
from libxlsr.errors import Aborted, LibxlsrError, TargetError, TimedOut
from libxlsr.events import Context, Timer
from libxlsr.events.chain import Call, Done, Step, Teardown, Wait
from libxlsr.helper.parent import LogCallback

log = logging.getLogger(__name__)

ATTACH_WORKER = "libxlsr.domain.devices.attach_worker"

BACKEND_TIMEOUT = 10.0
"""LIBXL_INIT_TIMEOUT: how long libxl waits for a backend before it runs the device's script."""

END_TIMEOUT = 30.0
"""Seconds that the child has to end when it has attached the last device: it takes milliseconds."""

DESTROY_TIMEOUT = 120.0
"""Seconds for libxl's destruction of the domain: its devices go at the same time, each within 10 s
for its backend and 40 s for each of two scripts."""


class Attaching:
    """The devices of one domain.

    ``files`` are the files that its disks may be set up from. ``timeout`` is how long one device
    may take, seconds; None: for ever. libxl has limits of its own, see `Xenlight.add`.
    """

    def __init__(
        self,
        ctx: Context,
        host: XenHost,
        plan: Plan,
        *,
        files: Sequence[str],
        timeout: float | None,
        on_log: LogCallback,
    ) -> None:
        self.plan = plan
        self._ctx = ctx
        self._host = host
        self._files = files
        self._timeout = timeout
        self._on_log = on_log
        self._helper = host.helper(
            ctx, ATTACH_WORKER, on_done=self._ended, on_log=on_log, on_call=self._asked
        )
        self._running = False
        self._domid: int | None = None
        self._loops_before: set[tuple[str, str]] = set()
        self._batch: list[Device] = []
        self._doing = ""
        self._reply: Callable[[dict[str, Any]], None] | None = None
        self._error: LibxlsrError | None = None
        self._done: Done | None = None
        self._timer = Timer(ctx)
        self._when_ended: Callable[[], None] | None = None

    def spawn(self) -> None:
        """Start the child, which loads libxenlight meanwhile. Raises TargetError."""
        self._helper.spawn()
        self._running = True

    def steps(self, domid: int, devices: Sequence[Device]) -> Iterator[Step]:
        """The steps that attach the devices to the domain, in their order."""
        for batch in batches(devices):
            yield Wait(functools.partial(self._attach, domid, batch), self._stop)

    def ending(self) -> Step:
        """The step that ends the child. No more can be attached after it."""
        return Wait(self._end, self._stop)

    # The child's work.

    def _attach(self, domid: int, batch: list[Device], done: Done) -> None:
        self._raise_error()
        if self._domid is None:
            self._loops_before = hotplug.loops_over(self._files, self._host.sys)
            self._domid = domid
            self._helper.begin({"domid": domid})
        self._done = done
        self._batch = batch
        self._doing = f"attaching the {batch_words(batch)}"
        if self._timeout is not None:
            self._within(BACKEND_TIMEOUT + self._timeout * len(batch))
        self._send()

    def _end(self, done: Done) -> None:
        self._raise_error()
        self._done = done
        self._doing = "the end of the process that attached the devices"
        self._within(END_TIMEOUT)
        self._send()

    def _within(self, seconds: float) -> None:
        self._timer.set(seconds, self._timed_out, seconds)

    def _send(self) -> None:
        """Give the child its next batch as soon as it has asked for one."""
        reply, self._reply = self._reply, None
        if reply is not None:
            batch, self._batch = self._batch, []
            reply({"devices": [device.work() for device in batch]})

    def _asked(
        self, _name: str, _args: dict[str, Any], reply: Callable[[dict[str, Any]], None]
    ) -> None:
        self._reply = reply
        if self._batch:
            self._send()
        else:
            self._report(None)

    def _timed_out(self, seconds: float) -> None:
        self._helper.abort(TimedOut(f"{self._doing} took longer than {seconds:g} s"))

    def _stop(self) -> None:
        self._done = None
        self._timer.stop()
        self._helper.abort(Aborted("the devices are not needed"))

    def _ended(self, _result: dict[str, Any] | None, error: LibxlsrError | None) -> None:
        self._running = False
        self._error = error
        self._report(error)
        when_ended, self._when_ended = self._when_ended, None
        if when_ended is not None:
            when_ended()

    def _report(self, error: LibxlsrError | None) -> None:
        self._timer.stop()
        done, self._done = self._done, None
        if done is not None:
            done(error)

    def _raise_error(self) -> None:
        """Raises what ended the child while it had nothing to do."""
        if self._error is not None:
            raise self._error

    # The undo.

    def retire(self, done: Done) -> None:
        """End the child if it runs. *done* comes from the event loop, with the error that names a
        child which does not end."""
        if self._running:
            self._when_ended = lambda: done(self._helper.left_behind)
            self._helper.abort(Aborted("the devices are not needed"))
        else:
            self._ctx.call_soon(done, None)

    def undo(self, done: Done) -> None:
        """End the child, and destroy the domain with its devices if it had begun to attach them.

        *done* comes from the event loop; its error says what could not be taken back.
        """
        Teardown(
            self._ctx,
            self._undoing(),
            lambda errors: done(summary(errors)),
            doing="take the devices back",
        ).start()

    def _undoing(self) -> Iterator[Step]:
        yield Wait(self.retire)
        domid = self._domid
        if domid is None:
            return
        yield Call(self._ctx, lambda: self._kill_scripts(domid))
        yield Wait(functools.partial(self._destroy, domid))
        yield Call(self._ctx, lambda: self._kill_scripts(domid))
        for device, file in hotplug.loops_over(self._files, self._host.sys) - self._loops_before:
            yield Call(self._ctx, functools.partial(self._detach_loop, device, file))

    def _kill_scripts(self, domid: int) -> None:
        killed = hotplug.kill_scripts(domid, self._host.proc)
        if killed:
            log.info("killed %d processes of domain %d's hotplug scripts", killed, domid)

    def _destroy(self, domid: int, done: Done) -> None:
        destroy(self._ctx, self._host, domid, done, timeout=DESTROY_TIMEOUT, on_log=self._on_log)

    @staticmethod
    def _detach_loop(device: str, file: str) -> None:
        try:
            hotplug.detach_loop(device)
        except OSError as error:
            raise TargetError.from_oserror(error, f"{device} stays set up over {file}") from error
