"""From memory that has been filled to a domain that is ready to run: libxl's steps, in its order.

Sources: domcreate_stream_done, domcreate_rebuild_done, domcreate_launch_dm,
domcreate_devmodel_started, domcreate_attach_devices and domcreate_complete (libxl_create.c).
"""

from __future__ import annotations

from collections.abc import Iterator

from libxlsr.domain import preflight
from libxlsr.domain.connections import Connections
from libxlsr.domain.console import TtyWait
from libxlsr.domain.device_model.emulator_state import StateFile
from libxlsr.domain.device_model.model import DeviceModel
from libxlsr.domain.device_model.program import needs_device_model
from libxlsr.domain.devices.attaching import Attaching
from libxlsr.domain.host import XenHost
from libxlsr.domain.new_domain import NewDomain
from libxlsr.domain.save_helper.parent import Rings
from libxlsr.domain.undo import Undo
from libxlsr.events import Context
from libxlsr.events.chain import Call, Step


class Completion:
    """The last steps of one domain. ``device_model`` is None where it has none.

    ``state`` is an HVM guest's emulator state. The device model must be ready within
    ``device_model_timeout`` seconds (None: whenever it is). With ``paused`` it is left stopped,
    as the domain is.
    """

    def __init__(
        self,
        ctx: Context,
        host: XenHost,
        connections: Connections,
        domain: NewDomain,
        attaching: Attaching,
        undo: Undo,
        *,
        state: StateFile | None,
        device_model_timeout: float | None,
        paused: bool,
    ) -> None:
        self._ctx = ctx
        self._host = host
        self._connections = connections
        self._domain = domain
        self._attaching = attaching
        self._undo = undo
        self._paused = paused
        self.device_model: DeviceModel | None = None
        if needs_device_model(domain.config):
            self.device_model = DeviceModel(
                ctx,
                host,
                connections.xenstore,
                domain.config,
                domain.domid,
                state,
                start_timeout=device_model_timeout,
            )

    def steps(self, rings: Rings) -> Iterator[Step]:
        """The steps, but for the unpause; ``rings`` are where the stream says that they are."""
        yield Call(self._ctx, lambda: self._domain.introduce(rings))  # libxl__build_post
        # Somebody may have taken a disk since: the stream can have taken long.
        yield Call(self._ctx, self._check_disks)
        yield from self._add_disks()
        yield from self._launch_device_model()
        yield from self._attach_devices()
        yield from self._complete()

    def _check_disks(self) -> None:
        preflight.check_disks(self._domain.config, self._host, self._connections.xenstore)

    def _add_disks(self) -> Iterator[Step]:
        """libxl__add_disks, in domcreate_rebuild_done: those that are there before QEMU."""
        plan = self._attaching.plan
        if plan:
            self._undo.push_waiting("the devices", self._attaching.undo)
        yield from self._attaching.steps(self._domain.domid, plan.before_device_model)

    def _launch_device_model(self) -> Iterator[Step]:
        """domcreate_launch_dm."""
        if self.device_model is not None:
            self._undo.push_waiting("the device model", self.device_model.stop)
            yield self.device_model.starting()

    def _attach_devices(self) -> Iterator[Step]:
        """domcreate_attach_devices, and its wait for the console's tty."""
        domid = self._domain.domid
        yield from self._attaching.steps(domid, self._attaching.plan.after_device_model)
        if self._attaching.plan:
            yield self._attaching.ending()
        yield TtyWait(self._ctx, self._connections.xenstore, self._connections.watches, domid)

    def _complete(self) -> Iterator[Step]:
        """domcreate_complete, and libxl__dm_resume of an HVM guest."""
        if self._attaching.plan:
            yield Call(self._ctx, self._domain.store_devices)
        if self.device_model is not None:
            if not self._paused and self._domain.config.hvm is not None:
                yield self.device_model.resuming()
            yield Call(self._ctx, self.device_model.check)
