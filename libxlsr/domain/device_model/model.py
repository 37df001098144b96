"""The device model: QEMU behind an HVM guest, or the backends of a PV or PVH guest's devices.

What happens, in this order, and libxl's function for it (libxl_dm.c)::

    start     hvmloader's nodes, log, QEMU             [libxl__spawn_local_dm]
              its pid in xenstore                      [libxl__spawn_record_pid]
              QMP: connect, until it has read the
              guest's state                            [device_model_qmp_cb]
              QMP: serial ports, VNC                   [device_model_postconfig_*]
    resume    QMP: cont                                [libxl__dm_resume]
    detach    it stays, as init's child
    stop      it and all of its traces are gone        [libxl__destroy_device_model]

libxl waits for "running" in the device model's ``state`` node, unless it restricts the device
model; then it asks by QMP, as is done here: only QMP tells why it is not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable

from libxlsr.domain.config import DomainConfig
from libxlsr.domain.device_model import emulator_state
from libxlsr.domain.device_model.args import Sockets, arguments, environment
from libxlsr.domain.device_model.log_file import last_line, open_log
from libxlsr.domain.device_model.process import DOING
from libxlsr.domain.device_model.program import program_of
from libxlsr.domain.device_model.qmp import Answer, QmpClient, QmpError, QmpLost
from libxlsr.domain.host import XenHost
from libxlsr.errors import LibxlsrError, TargetError, TimedOut, as_error
from libxlsr.events import Context, Timer
from libxlsr.events.chain import Call, Chain, Done, Step, Wait
from libxlsr.formats.text import printable
from libxlsr.xen.xenstore import Xenstore

log = logging.getLogger(__name__)

ANSWER_TIMEOUT = 10.0
"""LIBXL_QMP_CMD_TIMEOUT, seconds."""

POLL = 0.05
"""Seconds between two looks: whether it listens, whether it has read the state."""

LAST_WORDS_TIMEOUT = 1.0
"""Seconds between the loss of the connection and the end of the process, in which case the end
says more."""

_SERIAL = re.compile(r"serial(\d{1,3})\Z")
_STATES_READY = ("running", "paused", "prelaunch")


class DeviceModel:
    """One domain's device model. ``start`` and ``resume`` are steps, ``waiting`` stops either."""

    def __init__(
        self,
        ctx: Context,
        host: XenHost,
        xenstore: Xenstore,
        config: DomainConfig,
        domid: int,
        state: emulator_state.StateFile | None = None,
        *,
        start_timeout: float | None = None,
    ) -> None:
        self._ctx = ctx
        self._host = host
        self._xenstore = xenstore
        self._config = config
        self._domid = domid
        self._node = emulator_state.ModelNode(xenstore, domid)
        self._state = state
        self._sockets = Sockets.of(domid, host.run_dir)
        self._start_timeout = start_timeout
        self._log_path: Path | None = None
        self._process = host.device_model_process(ctx, self._process_failed)
        self._qmp: QmpClient | None = None
        self._chain: Chain | None = None
        self._timer = Timer(ctx)
        self._deadline = Timer(ctx)
        self._hung_up: QmpLost | None = None
        self._error: LibxlsrError | None = None

    @property
    def pid(self) -> int | None:
        """QEMU's process id, once it runs."""
        return self._process.pid

    # The steps.

    def starting(self) -> Step:
        """The step that starts it; done when it is ready for the guest to run."""
        return Wait(self._start, self._stop_waiting)

    def resuming(self) -> Step:
        """The step that has it go on, before the domain is unpaused."""
        return Wait(self._resume, self._stop_waiting)

    def check(self) -> None:
        """Raises what has gone wrong with it since it was ready."""
        if self._error is None and self._hung_up is not None:
            self._fail(self._hung_up)
        if self._error is not None:
            raise self._error

    def _start(self, done: Done) -> None:
        self._take(self._start_steps(), done)
        self._within(self._start_timeout, "get ready")

    def _start_steps(self) -> Iterator[Step]:
        yield Call(self._ctx, self._write_nodes)
        yield Call(self._ctx, self._spawn)
        yield Wait(self._process.await_pid, self._process.stop_waiting)
        yield Call(self._ctx, self._write_pid)
        yield Wait(self._connect, self._stop_asking)
        yield Wait(self._await_ready, self._stop_asking)
        yield Call(self._ctx, self._remove_state)
        self._within(ANSWER_TIMEOUT, "answer")
        yield self._asking("query-chardev", self._write_serial_ports)
        vnc = self._config.screen.vnc
        if vnc is not None:
            yield self._asking("query-vnc", self._write_vnc)
            password = vnc.password
            if password is not None:
                yield self._asking(
                    "change-vnc-password",
                    lambda _answer: self._write_vnc_password(password),
                    password=password,
                )

    def _resume(self, done: Done) -> None:
        self.check()
        self._take([self._asking("cont", lambda _value: None)], done)
        self._within(ANSWER_TIMEOUT, "go on")

    def _take(self, steps: Iterator[Step] | Sequence[Step], done: Done) -> None:
        def ended(error: LibxlsrError | None) -> None:
            self._chain = None
            self._deadline.stop()
            done(self._with_last_words(error) if isinstance(error, QmpError) else error)

        self._chain = Chain(self._ctx, steps, ended, doing=DOING)
        self._chain.start()

    def _stop_waiting(self) -> None:
        chain, self._chain = self._chain, None
        if chain is not None:
            chain.stop()
        self._deadline.stop()

    # Its start.

    def _write_nodes(self) -> None:
        hvm = self._config.hvm
        if hvm is not None:
            loader = f"/local/domain/{self._domid}/hvmloader"
            self._xenstore.write(f"{loader}/bios", hvm.bios)
            self._xenstore.write(f"{loader}/allow-memory-relocate", "0")
        self._node.make()
        vnc = self._config.screen.vnc
        if vnc is not None and vnc.password is not None:
            self._xenstore.write(f"/vm/{self._config.uuid}/vncpasswd", vnc.password)

    def _spawn(self) -> None:
        program = program_of(self._config, self._host)
        self._remove_sockets()
        with contextlib.ExitStack() as theirs:
            state_fd = None
            if self._state is not None:
                state_fd = self._state.open()
                theirs.callback(os.close, state_fd)
            argv = arguments(
                program,
                self._config,
                self._domid,
                sockets=self._sockets,
                state_fd=state_fd,
                script_paths=self._script_paths(),
            )
            log.info("starting the device model: %s", " ".join(argv))
            self._log_path, log_fd = open_log(f"qemu-dm-{self._config.name}", self._host.log_dir)
            theirs.callback(os.close, log_fd)
            self._process.spawn(
                argv,
                pass_fds=[] if state_fd is None else [state_fd],
                output_fd=log_fd,
                env={**os.environ, **environment(self._config, self._domid)},
            )

    def _script_paths(self) -> dict[str, str]:
        """Where disks' scripts, which have run, have put them
        (libxl__device_disk_find_local_path)."""
        paths = {}
        for disk in self._config.disks:
            place = disk.place
            if disk.script is not None and place is not None:
                backend = f"/local/domain/0/backend/vbd/{self._domid}/{place.number}"
                path = self._xenstore.read(f"{backend}/physical-device-path")
                if path is not None:
                    paths[disk.vdev] = path
        return paths

    def _write_pid(self) -> None:
        path = f"/local/domain/{self._domid}/image/device-model-pid"
        self._xenstore.write(path, str(self.pid))

    def _connect(self, done: Done) -> None:
        qmp = self._qmp = QmpClient(self._ctx, self._sockets.toolstack, self._lost)

        def connected(_value: Any, error: LibxlsrError | None) -> None:
            done(error)

        def attempt() -> None:
            try:
                if not qmp.connect(connected):
                    self._timer.set(POLL, attempt)
            except OSError as error:
                self._fail(TargetError.from_oserror(error, "QMP", call="connect"))

        attempt()

    def _await_ready(self, done: Done) -> None:
        def ask() -> None:
            self._ask("query-status", answered)

        def answered(value: Any, error: LibxlsrError | None) -> None:
            status = value.get("status") if isinstance(value, dict) else None
            if error is not None or status in _STATES_READY:
                done(error)
            elif status == "inmigrate":
                self._timer.set(POLL, ask)
            else:
                done(QmpError(f"the device model's state is {printable(str(status), 40)}"))

        ask()

    def _remove_state(self) -> None:
        if self._state is not None:
            self._state.remove()

    def _asking(self, command: str, act: Callable[[Any], object], **arguments: Any) -> Step:
        def start(done: Done) -> None:
            def answered(value: Any, error: LibxlsrError | None) -> None:
                if error is None:
                    try:
                        act(value)
                    except LibxlsrError as failure:
                        error = failure
                done(error)

            self._ask(command, answered, **arguments)

        return Wait(start, self._stop_asking)

    def _ask(self, command: str, answer: Answer, **arguments: Any) -> None:
        """Ask, unless it has been lost since the last answer: what is wrong comes then."""
        if self._qmp is not None:
            self._qmp.execute(command, answer, **arguments)

    def _write_serial_ports(self, untrusted: Any) -> None:
        for item in untrusted if isinstance(untrusted, list) else ():
            label = item.get("label") if isinstance(item, dict) else None
            match = _SERIAL.match(label) if isinstance(label, str) else None
            if match is None:
                continue
            place = item.get("filename")
            if isinstance(place, str) and place.startswith("pty:") and place.isprintable():
                path = f"/local/domain/{self._domid}/serial/{int(match[1])}/tty"
                self._xenstore.write(path, place[len("pty:") :][:1024])

    def _write_vnc(self, untrusted: Any) -> None:
        answer = untrusted if isinstance(untrusted, dict) else {}
        if answer.get("enabled") is not True:
            return
        for member, name in (("host", "vnc-listen"), ("service", "vnc-port")):
            text = answer.get(member)
            if not isinstance(text, str) or not text.isprintable() or len(text) > 1024:
                raise QmpError(f"the device model tells no {member} of its VNC server")
            self._xenstore.write(f"/local/domain/{self._domid}/console/{name}", text)

    def _write_vnc_password(self, password: str) -> None:
        self._xenstore.write(f"/local/domain/{self._domid}/console/vnc-pass", password)

    # Its end.

    def _fail(self, error: LibxlsrError) -> None:
        """What went wrong first is the error, of the step that waits or of the next."""
        if self._error is None:
            self._error = self._with_last_words(error)
        chain = self._chain
        if chain is not None:
            chain.abort(self._error)

    def _lost(self, error: LibxlsrError) -> None:
        """No more QMP. One that hung up has most often ended, and how is the better message."""
        self._stop_asking()
        if isinstance(error, QmpLost):
            self._hung_up = error
            self._timer.set(LAST_WORDS_TIMEOUT, self._fail, error)
        else:
            self._fail(error)

    def _with_last_words(self, error: LibxlsrError) -> LibxlsrError:
        if self._log_path is not None:
            if isinstance(error, TargetError):
                line = last_line(self._log_path)
                error.last_log = None if line is None else printable(line, 400)
            error.remedy = f"see {self._log_path}"
        return error

    def _process_failed(self, error: LibxlsrError) -> None:
        self._stop_asking()
        self._fail(error)

    def detach(self, done: Callable[[], object]) -> None:
        """The restore has succeeded: it stays, and is no longer ours. ``done()`` comes later."""
        self._stop_asking()
        self._process.detach(done)

    def stop(self, done: Done) -> None:
        """Kill it, and remove its traces; ``done(error)`` comes later, with what is left."""
        self._stop_waiting()
        self._stop_asking()
        self._process.kill(lambda error: self._clean_up(done, error))

    def _clean_up(self, done: Done, error: LibxlsrError | None) -> None:
        try:
            self._remove_sockets()
            self._remove_state()
            self._node.remove()
        except (LibxlsrError, OSError) as failure:
            error = error or as_error(failure, "remove the device model")
        done(error)

    def _remove_sockets(self) -> None:
        for path in (self._sockets.toolstack, self._sockets.statistics):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    # Its deadline and the connection.

    def _within(self, seconds: float | None, doing: str) -> None:
        self._deadline.stop()
        if seconds is None:
            return

        def too_late() -> None:
            self._fail(TimedOut(f"the device model did not {doing} within {seconds:g} s"))

        self._deadline.set(seconds, too_late)

    def _stop_asking(self) -> None:
        self._timer.stop()
        self._close_qmp()

    def _close_qmp(self) -> None:
        qmp, self._qmp = self._qmp, None
        if qmp is not None:
            qmp.close()
