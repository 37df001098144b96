"""``XenTarget``: one domain on its way from an image's configuration to running.

See ``libxlsr.restoring.target`` for the rules and this package's docstring for the order. What
blocks runs in a child (``restore_helper``); the other hypercalls and xenstore requests are short
and are made from the event loop, as libxl makes them.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from libxlsr.domain import console, create, identity, preflight
from libxlsr.domain import nodes as xenstore_nodes
from libxlsr.domain.ballooning import ballooning
from libxlsr.domain.config import DomainConfig, read_config
from libxlsr.domain.config.overrides import apply_overrides
from libxlsr.domain.cpu_policy import check_cpu_policy
from libxlsr.domain.creation_lock import CreationLock
from libxlsr.domain.device_model import emulator_state
from libxlsr.domain.device_model.model import DeviceModel
from libxlsr.domain.device_model.program import needs_device_model
from libxlsr.domain.devices.attaching import Attaching
from libxlsr.domain.devices.plan import plan, writable_files
from libxlsr.domain.host import XenHost
from libxlsr.domain.introduction import introduce
from libxlsr.domain.libxl_files import domid_history, userdata
from libxlsr.domain.rollback import Rollback
from libxlsr.domain.save_helper.parent import RestoreHelper, Rings, rewind
from libxlsr.domain.save_helper.spare import SpareHelper
from libxlsr.domain.undo import Undo, summary
from libxlsr.errors import LibxlsrError, StreamError, UsageError, as_error
from libxlsr.events import Context, TimeEvent
from libxlsr.events.chain import Call, Chain, Done, Step, Wait
from libxlsr.formats import libxl, xl
from libxlsr.restoring.target import (
    FinishDone,
    ImageDescription,
    LibxcDone,
    LibxcOutcome,
    Restored,
    TargetHooks,
)
from libxlsr.stream.libxc_stream import LibxcStream
from libxlsr.xen.hostinfo import DomainInfo
from libxlsr.xen.watches import Watches
from libxlsr.xen.xenctrl import Xenctrl
from libxlsr.xen.xenstore import Xenstore

log = logging.getLogger(__name__)

PROGRESS_INTERVAL = 0.2
"""Seconds between two looks at how far the restore is."""


@dataclass(frozen=True)
class XenOptions:
    """What the caller wants of the domain.

    ``overrides`` are (key, value) of ``overrides.apply_overrides``. ``config`` stands in for the
    configuration of an image that has none. ``paused`` leaves the domain paused. ``balloon`` lets
    dom0 give memory up where the host lacks it, for one restore at a time (``creation_lock``).
    ``spare_helper`` has a helper ready, on the context
    of the restore.
    """

    overrides: Sequence[tuple[str, str]] = ()
    config: xl.Config | None = None
    paused: bool = False
    balloon: bool = False
    spare_helper: SpareHelper | None = None


class XenTarget:
    """Restores the domain for real; one instance for one restore."""

    name = "xen"

    def __init__(
        self, ctx: Context, options: XenOptions | None = None, host: XenHost | None = None
    ) -> None:
        """``host`` is where the domain is restored; None: this machine."""
        self._ctx = ctx
        self._host = host or XenHost()
        self._options = options or XenOptions()
        self._hooks: TargetHooks | None = None
        self._config: DomainConfig | None = None
        self._attaching: Attaching | None = None
        self._xenctrl: Xenctrl | None = None
        self._xenstore: Xenstore | None = None
        self._watches: Watches | None = None
        self._creation_lock: CreationLock | None = None
        self._state: create.BuildState | None = None
        self._domid: int | None = None
        self._rings: Rings | None = None
        self._undo = Undo()
        self._helper: RestoreHelper | None = None
        self._dm_state: emulator_state.StateFile | None = None
        self._device_model: DeviceModel | None = None
        self._chain: Chain | None = None
        self._timer: TimeEvent | None = None

    @property
    def domid(self) -> int | None:
        """The new domain's id, once there is one."""
        return self._domid

    @property
    def helper_pid(self) -> int | None:
        """The process id of the child while libxenguest reads the stream."""
        return None if self._helper is None else self._helper.pid

    # prepare

    def prepare(self, image: ImageDescription, hooks: TargetHooks, done: Done) -> None:
        """Check what can be known, make memory available, make the domain."""
        self._hooks = hooks

        def steps() -> Iterator[Step]:
            yield Call(self._ctx, lambda: self._check(image))
            if self._options.balloon:
                yield from self._ballooning()
            yield Call(self._ctx, self._make_domain)

        self._take(steps(), done, doing="prepare the domain")

    def _check(self, image: ImageDescription) -> None:
        config = self._config = self._read_config(image)
        self._host.require_root()
        xenctrl = self._xenctrl = self._host.open_xenctrl()
        xenstore = self._xenstore = self._host.open_xenstore()
        self._watches = Watches(self._ctx, xenstore)
        preflight.check(config, self._host, xenctrl, xenstore, may_balloon=self._options.balloon)
        assert self._hooks is not None
        spare = self._options.spare_helper
        self._helper = RestoreHelper(self._ctx, self._host) if spare is None else spare.take()
        devices = plan(config)
        if devices:
            self._attaching = Attaching(
                self._ctx,
                self._host,
                devices,
                files=writable_files(config.disks),
                timeout=self._hooks.timeouts.hotplug,
                on_log=self._hooks.log,
            )
            self._attaching.spawn()

    def _ballooning(self) -> Iterator[Step]:
        xenctrl, xenstore, config = self._parts()
        self._creation_lock = CreationLock(self._ctx, self._host.lock_file)
        yield self._creation_lock
        yield from ballooning(self._ctx, xenctrl, xenstore, config, self._undo)

    def _read_config(self, image: ImageDescription) -> DomainConfig:
        found = image.config if image.config is not None else self._options.config
        if found is None:
            raise UsageError(
                "the image has no domain configuration, and none was given",
                remedy="give libxl's JSON of the domain with --config",
            )
        config = read_config(found)
        if self._options.overrides:
            config = read_config(apply_overrides(found, self._options.overrides))
        return config

    def _make_domain(self) -> None:
        xenctrl, xenstore, config = self._parts()
        identity.require_free(config, xenctrl, xenstore)
        domid = self._domid = create.create_domain(xenctrl, xenstore, config, self._host.run_dir)
        self._undo.push(f"domain {domid}", lambda: self._destroy(domid))
        self._state = create.set_up_domain(xenctrl, xenstore, config, domid)

    # restore_libxc

    def restore_libxc(self, stream: LibxcStream, done: LibxcDone) -> None:
        """Let libxenguest read the libxc stream, in a child; meanwhile describe the domain."""
        xenctrl, _xenstore, config = self._parts()
        assert self._hooks is not None
        assert self._state is not None
        assert self._helper is not None
        fd = stream.fd
        try:
            start = rewind(stream)
            if start is not None:
                check_cpu_policy(xenctrl, self._state.domid, fd, start)
        except Exception as error:
            self._ctx.call_soon(done, None, as_error(error, "restore the domain"))
            return

        def ended(rings: Rings | None, error: LibxlsrError | None) -> None:
            self._report_progress(fd, start)
            self._stop_timer()
            if rings is None:
                done(None, error)
                return
            self._rings = rings
            consumed = None if start is None else os.lseek(fd, 0, os.SEEK_CUR) - start
            done(LibxcOutcome(consumed, "hvm" if config.hvm_container else "pv"), None)

        self._helper.read(stream, self._state, config, self._hooks.log, ended)
        self._look_at_progress(fd, start)
        try:
            self._describe(self._state)
        except Exception as error:
            self._helper.abort(as_error(error, "describe the domain"))

    def _describe(self, state: create.BuildState) -> None:
        """Tell xenstore, the scheduler and xl what is known of the domain before its memory is."""
        xenctrl, xenstore, config = self._parts()
        # All or none: who is refused here has made none, and the other's must stay.
        xenstore_nodes.create(xenstore, config, state, is_alive=self._is_alive)
        self._undo.push(
            f"the nodes of domain {state.domid}",
            lambda: xenstore_nodes.remove(xenstore, config, state),
        )
        create.set_scheduling(xenctrl, config, state.domid)
        self._undo.push(
            f"the userdata of domain {state.domid}",
            lambda: userdata.remove_all(state.domid, config.uuid, self._host.lib_dir),
        )
        userdata.store_config(
            state.domid,
            config.uuid,
            userdata.without_attached(config.json),
            self._host.lib_dir,
        )

    def _look_at_progress(self, fd: int, start: int | None) -> None:
        self._timer = self._ctx.call_later(PROGRESS_INTERVAL, self._tick, fd, start)

    def _tick(self, fd: int, start: int | None) -> None:
        self._report_progress(fd, start)
        self._look_at_progress(fd, start)

    def _report_progress(self, fd: int, start: int | None) -> None:
        """The child shares the file offset; what Xen has given the domain tells the rest."""
        counters = {}
        if start is not None:
            counters["bytes"] = os.lseek(fd, 0, os.SEEK_CUR) - start
        info = None
        with contextlib.suppress(LibxlsrError):  # the next look will tell
            info = self._info()
        if info is not None:
            counters["frames"] = info.total_bytes // 4096
        if self._hooks is not None and counters:
            self._hooks.progress(counters)

    def _info(self) -> DomainInfo | None:
        """None where there is no such domain. Raises LibxlsrError where Xen doesn't tell."""
        if self._xenctrl is None or self._domid is None:
            return None
        return self._xenctrl.domain_info(self._domid)

    def _is_alive(self, domid: int) -> bool:
        assert self._xenctrl is not None
        info = self._xenctrl.domain_info(domid)
        return info is not None and not info.dying

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.deregister()

    # The emulator's records.

    def emulator_xenstore_data(self, record: libxl.EmulatorXenstoreData, done: Done) -> None:
        """Write the device model's keys below its node."""
        _xenctrl, xenstore, _config = self._parts()

        def write() -> None:
            self._check_has_device_model()
            emulator_state.check_keys(record)
            node = emulator_state.ModelNode(xenstore, self._known_domid())
            self._undo.push(f"the node {node.path}", node.remove)
            node.write_keys(record)

        self._take([Call(self._ctx, write)], done, doing="write the device model's keys")

    def emulator_context(self, record: libxl.EmulatorContext, done: Done) -> None:
        """Write the device model's state into the file that it will be read from."""

        def check() -> None:
            self._check_has_device_model()
            emulator_state.check_context(record)

        def steps() -> Iterator[Step]:
            yield Call(self._ctx, check)
            state = self._dm_state
            if state is None:
                state = self._dm_state = emulator_state.StateFile(
                    self._ctx, self._known_domid(), self._host.lib_dir
                )
                self._undo.push(f"the file {state.path}", state.remove)
            yield Wait(functools.partial(state.write, record.context), state.stop)

        self._take(steps(), done, doing="write the device model's state")

    def _check_has_device_model(self) -> None:
        """Raises StreamError for a guest without: the record names none, a configuration does."""
        _xenctrl, _xenstore, config = self._parts()
        if config.hvm is None:
            raise StreamError(
                f"a {config.domain_type} guest has no device model",
                offset=None,
                expected="such a record for HVM guests only",
            )

    # finish

    def finish(self, done: FinishDone) -> None:
        """Take the last steps (``_last_steps``), and unpause the domain."""

        def ended(error: LibxlsrError | None) -> None:
            done(None, error) if error is not None else self._let_go(done)

        self._take(self._last_steps(), ended, doing="finish the domain")

    def _last_steps(self) -> Iterator[Step]:
        _xenctrl, xenstore, config = self._parts()
        assert self._state is not None
        assert self._watches is not None
        assert self._hooks is not None
        attaching, domid = self._attaching, self._known_domid()
        yield Call(self._ctx, self._check_state)
        yield Call(self._ctx, self._introduce)
        # Somebody may have taken a disk since: the stream can have taken long.
        yield Call(self._ctx, lambda: preflight.check_disks(config, self._host, xenstore))
        if attaching is not None:
            yield from attaching.steps(domid, attaching.plan.before_device_model)
        if needs_device_model(config):
            model = self._device_model = DeviceModel(
                self._ctx,
                self._host,
                xenstore,
                config,
                self._known_domid(),
                self._dm_state,
                start_timeout=self._hooks.timeouts.device_model,
            )
            yield model.starting()
        if attaching is not None:
            yield from attaching.steps(domid, attaching.plan.after_device_model)
            yield attaching.ending()
        yield console.TtyWait(self._ctx, xenstore, self._watches, self._state.domid)
        if attaching is not None:
            yield Call(self._ctx, self._settle_userdata)
        if self._device_model is not None:
            if not self._options.paused and config.hvm is not None:
                yield self._device_model.resuming()
            yield Call(self._ctx, self._device_model.check)

    def _check_state(self) -> None:
        """The stream of a guest whose type only the caller's configuration tells is checked here
        for what it lacks."""
        _xenctrl, _xenstore, config = self._parts()
        if config.hvm is not None and self._dm_state is None:
            raise StreamError(
                "the stream of an HVM guest ends without an EMULATOR_CONTEXT",
                offset=None,
                expected="the device model's state",
            )

    def _introduce(self) -> None:
        _xenctrl, xenstore, config = self._parts()
        assert self._state is not None
        assert self._rings is not None
        introduce(xenstore, config, self._state, self._rings)

    def _settle_userdata(self) -> None:
        """libxl has written the devices down as it attached them; the image's order is kept."""
        _xenctrl, _xenstore, config = self._parts()
        domid = self._known_domid()
        lib_dir = self._host.lib_dir
        attached = userdata.load_config(domid, config.uuid, lib_dir)
        whole = userdata.with_attached(config.json, attached)
        userdata.store_config(domid, config.uuid, whole, lib_dir)

    def _let_go(self, done: FinishDone) -> None:
        """The domain is whole: let it run. Nothing is undone after that."""
        xenctrl, _xenstore, config = self._parts()
        domid = self._known_domid()
        try:
            release = xenctrl.xen_version().release
            if not self._options.paused:
                xenctrl.domain_unpause(domid)
        except Exception as error:
            done(None, as_error(error, "let the domain run"))
            return
        self._undo.forget()
        restored = Restored(
            target=self.name,
            where=f"domain {domid}",
            domid=domid,
            name=config.name,
            domain_type=config.domain_type,
            memory_kib=config.target_memkb,
            vcpus=config.max_vcpus,
            xen_version=release,
        )

        def alone() -> None:
            self._close()
            self._refill_spare()
            done(restored, None)

        if self._device_model is not None:
            self._device_model.let_go(alone)
        else:
            alone()

    # rollback and abort

    def rollback(self, done: Done) -> None:
        """Undo everything: nodes, files, the domain; wait until Xen has let it go."""
        self._ctx.call_soon(self._rollback, done)

    def _rollback(self, done: Done) -> None:
        self._stop_timer()

        def undone(errors: list[LibxlsrError]) -> None:
            self._remove_late_nodes()
            self._close()
            self._refill_spare()
            done(summary(errors))

        Rollback(
            self._ctx,
            self._host,
            self._undo,
            helper=self._helper,
            model=self._device_model,
            attaching=self._attaching,
            info=self._info,
            on_log=self._hooks.log if self._hooks is not None else log.log,
            on_done=undone,
        ).start()

    def _remove_late_nodes(self) -> None:
        """xenconsoled may have written a node between their removal and the domain's end."""
        if self._xenstore is not None and self._domid is not None:
            try:
                self._xenstore.rm(f"/local/domain/{self._domid}")
            except LibxlsrError as error:
                log.warning("%s", error)

    def abort(self, reason: LibxlsrError) -> None:
        """Stop the call in flight."""
        if self._chain is not None:
            self._chain.abort(reason)
        elif self._helper is not None:
            self._helper.abort(reason)

    # Parts.

    def _take(self, steps: Iterable[Step], done: Done, *, doing: str) -> None:
        def ended(error: LibxlsrError | None) -> None:
            self._chain = None
            done(error)

        self._chain = Chain(self._ctx, steps, ended, doing=doing)
        self._chain.start()

    def _parts(self) -> tuple[Xenctrl, Xenstore, DomainConfig]:
        assert self._xenctrl is not None
        assert self._xenstore is not None
        assert self._config is not None
        return self._xenctrl, self._xenstore, self._config

    def _refill_spare(self) -> None:
        """Now that it can't take the processor from this restore."""
        if self._options.spare_helper is not None:
            self._options.spare_helper.refill()

    def _known_domid(self) -> int:
        assert self._domid is not None
        return self._domid

    def _destroy(self, domid: int) -> None:
        assert self._xenctrl is not None
        try:
            if self._info() is None:  # libxl has destroyed it with its devices
                return
        except LibxlsrError as error:
            log.warning("%s; it is destroyed all the same", error)
        try:
            domid_history.mark_recent(domid, self._host.run_dir)
        except OSError as error:
            log.warning("domain id %d is not marked as recently used: %s", domid, error)
        self._xenctrl.domain_destroy(domid)

    def _close(self) -> None:
        if self._creation_lock is not None:
            self._creation_lock.close()
        if self._watches is not None:
            self._watches.close()
        if self._xenstore is not None:
            self._xenstore.close()
        if self._xenctrl is not None:
            self._xenctrl.close()
        self._watches = self._xenstore = self._xenctrl = None
