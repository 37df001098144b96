"""``XenTarget``: one domain on its way from an image's configuration to running.

See ``libxlsr.restoring.target`` for the rules. What it does, in this order, and where each part is
(libxl's function in brackets)::

    prepare                 what can be known beforehand, said in one message
                            [libxl_domain_create_restore]      domain.preflight
                            memory that dom0 gives up [freemem]  domain.ballooning
                            the domain [libxl__domain_make, libxl__build_pre]
                                                               domain.new_domain
    restore_libxc           xc_domain_restore, in a child [libxl__xc_domain_restore]; its nodes and
                            userdata meanwhile                 xen_reading
    emulator_xenstore_data  [libxl__restore_emulator_xenstore_data], and
    emulator_context        [write_emulator_blob]              domain.device_model.emulator_state
    finish                  [domcreate_stream_done to domcreate_complete]
                                                               domain.completion
                            [libxl_domain_unpause]             here

What blocks runs in a child; the other hypercalls and xenstore requests are short and are made from
the event loop, as libxl makes them.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from typing import Protocol

from libxlsr.domain import preflight
from libxlsr.domain.ballooning import ballooning
from libxlsr.domain.completion import Completion
from libxlsr.domain.config import DomainConfig, read_config
from libxlsr.domain.config.overrides import apply_overrides
from libxlsr.domain.connections import Connections
from libxlsr.domain.creation_lock import CreationLock
from libxlsr.domain.device_model import emulator_state
from libxlsr.domain.devices.attaching import Attaching
from libxlsr.domain.devices.plan import plan, writable_files
from libxlsr.domain.host import XenHost
from libxlsr.domain.new_domain import NewDomain
from libxlsr.domain.save_helper.parent import RestoreHelper, Rings
from libxlsr.domain.undo import Undo, summary
from libxlsr.errors import LibxlsrError, UsageError, as_error
from libxlsr.events import Context
from libxlsr.events.chain import Call, Chain, Done, Step, Wait
from libxlsr.formats import libxl
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.target import (
    FinishDone,
    ImageDescription,
    LibxcDone,
    LibxcOutcome,
    Restored,
    TargetHooks,
)
from libxlsr.restoring.xen_reading import XenReading
from libxlsr.stream.libxc_stream import LibxcStream


class _Stoppable(Protocol):
    def abort(self, reason: LibxlsrError) -> None: ...


class XenTarget:
    """Restores the domain for real; one instance for one restore."""

    name = "xen"

    # What there is after ``prepare``, before which the rules let nothing else be called.
    _hooks: TargetHooks
    _connections: Connections
    _helper: RestoreHelper
    _attaching: Attaching
    _domain: NewDomain

    # What there is after ``restore_libxc``.
    _rings: Rings

    def __init__(
        self, ctx: Context, options: RestoreOptions | None = None, host: XenHost | None = None
    ) -> None:
        """``host`` is where the domain is restored; None: this machine."""
        self._ctx = ctx
        self._host = host or XenHost()
        self._options = options or RestoreOptions()
        self._undo = Undo()
        self._at_end = contextlib.ExitStack()
        """What is given back at the end, also of a restore that has succeeded."""

        self._call: _Stoppable | None = None
        """The call in flight."""

        self._state: emulator_state.StateFile | None = None

    @property
    def domid(self) -> int | None:
        """The new domain's id, once there is one."""
        return self._domain.domid if hasattr(self, "_domain") else None

    @property
    def helper_pid(self) -> int | None:
        """The process id of the child in which libxenguest reads the stream, while there is one."""
        return self._helper.pid if hasattr(self, "_helper") else None

    def prepare(self, image: ImageDescription, hooks: TargetHooks, done: Done) -> None:
        """Check what can be known, make memory available, make the domain."""
        self._hooks = hooks
        self._take(self._prepare(image), done, doing="prepare the domain")

    def restore_libxc(self, stream: LibxcStream, done: LibxcDone) -> None:
        """Let libxenguest read the libxc stream, in a child."""
        config = self._domain.config

        def ended(rings: Rings | None, error: LibxlsrError | None) -> None:
            self._call = None
            if rings is None:
                done(None, error)
            else:
                self._rings = rings
                kind = "hvm" if config.hvm_container else "pv"
                done(LibxcOutcome(reading.consumed, kind), None)

        try:
            reading = XenReading(
                self._ctx,
                self._host,
                self._connections.xenctrl,
                self._domain,
                self._helper,
                stream,
                self._hooks,
            )
        except Exception as error:
            self._ctx.call_soon(done, None, as_error(error, "restore the domain"))
            return
        self._call = reading
        reading.start(ended)

    def emulator_xenstore_data(self, record: libxl.EmulatorXenstoreData, done: Done) -> None:
        """Write the device model's keys below its node."""

        def write() -> None:
            emulator_state.check_keys(record)
            node = emulator_state.ModelNode(self._connections.xenstore, self._domain.domid)
            self._undo.push(f"the node {node.path}", node.remove)
            node.write_keys(record)

        self._take([Call(self._ctx, write)], done, doing="write the device model's keys")

    def emulator_context(self, record: libxl.EmulatorContext, done: Done) -> None:
        """Write the device model's state into the file that it will be read from."""

        def steps() -> Iterator[Step]:
            yield Call(self._ctx, lambda: emulator_state.check_context(record))
            state = self._state
            if state is None:
                lib_dir = self._host.lib_dir
                state = emulator_state.StateFile(self._ctx, self._domain.domid, lib_dir)
                self._undo.push(f"the file {state.path}", state.remove)
                self._state = state
            yield Wait(functools.partial(state.write, record.context), state.stop)

        self._take(steps(), done, doing="write the device model's state")

    def finish(self, done: FinishDone) -> None:
        """Take the last steps, and unpause the domain."""

        def ended(error: LibxlsrError | None) -> None:
            if error is None:
                self._start_domain(completion, done)
            else:
                done(None, error)

        completion = Completion(
            self._ctx,
            self._host,
            self._connections,
            self._domain,
            self._attaching,
            self._undo,
            state=self._state,
            device_model_timeout=self._hooks.timeouts.device_model,
            paused=self._options.paused,
        )
        self._take(completion.steps(self._rings), ended, doing="finish the domain")

    def rollback(self, done: Done) -> None:
        """Undo everything: processes, nodes, files, the domain; wait until Xen has let it go."""

        def undone(errors: list[LibxlsrError]) -> None:
            self._at_end.close()
            done(summary(errors))

        self._ctx.call_soon(self._undo.run, undone)

    def abort(self, reason: LibxlsrError) -> None:
        """Stop the call in flight."""
        if self._call is not None:
            self._call.abort(reason)

    # The steps of `prepare`, and the end.

    def _prepare(self, image: ImageDescription) -> Iterator[Step]:
        config = self._read_config(image)
        yield Call(self._ctx, lambda: self._check(config))
        yield Call(self._ctx, lambda: self._start_children(config))
        if self._options.balloon:
            yield from self._make_room(config)
        yield Call(self._ctx, lambda: self._make_domain(config))

    def _read_config(self, image: ImageDescription) -> DomainConfig:
        found = image.config
        if found is None:
            raise UsageError(
                "the image has no domain configuration, and none was given",
                remedy="give libxl's JSON of the domain with --config",
            )
        config = read_config(found)
        if self._options.overrides:
            changed = read_config(apply_overrides(found, self._options.overrides))
            if changed.domain_type != config.domain_type:
                raise UsageError(
                    f"the image is of a {config.domain_type} guest: an override can't make a "
                    f"{changed.domain_type} guest of it"
                )
            config = changed
        return config

    def _check(self, config: DomainConfig) -> None:
        self._host.require_root()
        self._connections = Connections(self._ctx, self._host)
        self._at_end.callback(self._connections.close)
        preflight.check(
            config,
            self._host,
            self._connections.xenctrl,
            self._connections.xenstore,
            may_balloon=self._options.balloon,
        )

    def _start_children(self, config: DomainConfig) -> None:
        """They load Xen's libraries while the domain is made."""
        spare = self._options.spare_helper
        if spare is None:
            self._helper = RestoreHelper(self._ctx, self._host)
        else:
            self._helper = spare.take()
            self._at_end.callback(spare.refill)  # then it takes no processor from this restore
        self._undo.push_waiting("the helper", self._helper.retire)
        self._attaching = Attaching(
            self._ctx,
            self._host,
            plan(config),
            files=writable_files(config.disks),
            timeout=self._hooks.timeouts.hotplug,
            on_log=self._hooks.log,
        )
        if self._attaching.plan:
            self._attaching.spawn()
            self._undo.push_waiting("the process that attaches devices", self._attaching.retire)

    def _make_room(self, config: DomainConfig) -> Iterator[Step]:
        lock = CreationLock(self._ctx, self._host.lock_file)
        self._at_end.callback(lock.close)
        yield lock
        xenctrl, xenstore = self._connections.xenctrl, self._connections.xenstore
        yield from ballooning(self._ctx, xenctrl, xenstore, config, self._undo)

    def _make_domain(self, config: DomainConfig) -> None:
        self._domain = NewDomain(
            self._ctx, self._host, self._connections, config, self._undo, self._hooks.log
        )

    def _start_domain(self, completion: Completion, done: FinishDone) -> None:
        """The domain is whole: let it run. Nothing is undone after that."""
        domain, config = self._domain, self._domain.config
        try:
            release = self._connections.xenctrl.xen_version().release
            if not self._options.paused:
                domain.unpause()
        except Exception as error:
            done(None, as_error(error, "let the domain run"))
            return
        self._undo.forget()
        restored = Restored(
            target=self.name,
            where=f"domain {domain.domid}",
            domid=domain.domid,
            name=config.name,
            domain_type=config.domain_type,
            memory_kib=config.target_memkb,
            vcpus=config.max_vcpus,
            xen_version=release,
        )

        def detached() -> None:
            self._at_end.close()
            done(restored, None)

        if completion.device_model is not None:
            completion.device_model.detach(detached)
        else:
            detached()

    def _take(self, steps: Iterable[Step], done: Done, *, doing: str) -> None:
        def ended(error: LibxlsrError | None) -> None:
            self._call = None
            done(error)

        self._call = chain = Chain(self._ctx, steps, ended, doing=doing)
        chain.start()
