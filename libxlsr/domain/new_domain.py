"""A domain from its creation until it runs."""

from __future__ import annotations

from libxlsr.domain import create, identity
from libxlsr.domain import nodes as xenstore_nodes
from libxlsr.domain.config import DomainConfig
from libxlsr.domain.connections import Connections
from libxlsr.domain.destruction import Destruction
from libxlsr.domain.host import XenHost
from libxlsr.domain.introduction import introduce
from libxlsr.domain.libxl_files import userdata
from libxlsr.domain.save_helper.parent import Rings
from libxlsr.domain.undo import Undo
from libxlsr.events import Context
from libxlsr.helper.parent import LogCallback


class NewDomain:
    """A domain that is being made. ``undo`` learns how to take back what is done to it."""

    def __init__(
        self,
        ctx: Context,
        host: XenHost,
        connections: Connections,
        config: DomainConfig,
        undo: Undo,
        on_log: LogCallback,
    ) -> None:
        """Create it, paused and without memory [libxl__domain_make, libxl__build_pre].

        Raises LibxlsrError; then ``undo`` may have a domain to destroy all the same.
        """
        self._host = host
        self._xenctrl = connections.xenctrl
        self._xenstore = connections.xenstore
        self._undo = undo
        self.config = config
        identity.require_free(config, self._xenctrl, self._xenstore)
        self.domid = create.create_domain(self._xenctrl, self._xenstore, config, host.run_dir)
        self._destruction = Destruction(ctx, host, connections, self.domid, on_log)
        undo.push_waiting(f"domain {self.domid}", self._destruction.destroy)
        self.state = create.set_up_domain(self._xenctrl, self._xenstore, config, self.domid)

    def describe(self) -> None:
        """Tell xenstore, the scheduler and xl what is known of it before its memory is there
        [libxl__domain_make, libxl__build_post, libxl__set_domain_configuration]."""
        # All or none: a restore that is refused here has made none, and the other's must stay.
        xenstore_nodes.create(self._xenstore, self.config, self.state, is_alive=self._is_alive)
        self._undo.push(
            f"the nodes of domain {self.domid}",
            lambda: xenstore_nodes.remove(self._xenstore, self.config, self.state),
        )
        create.set_scheduling(self._xenctrl, self.config, self.domid)
        self._undo.push(
            f"the userdata of domain {self.domid}",
            lambda: userdata.remove_all(self.domid, self.config.uuid, self._host.lib_dir),
        )
        self._store_config(userdata.without_attached(self.config.json))
        # By libxl, which goes by the nodes.
        self._undo.push_waiting(
            f"the memory of domain {self.domid}", self._destruction.destroy_large
        )

    def introduce(self, rings: Rings) -> None:
        """Introduce it to xenstored, now that it is known where its rings are
        [libxl__build_post]."""
        introduce(self._xenstore, self.config, self.state, rings)

    def store_devices(self) -> None:
        """Have xl's configuration list its devices in the image's order: libxl has noted each as it
        attached it [libxl__set_domain_configuration]."""
        attached = userdata.load_config(self.domid, self.config.uuid, self._host.lib_dir)
        self._store_config(userdata.with_attached(self.config.json, attached))

    def unpause(self) -> None:
        """Let it run [libxl_domain_unpause]."""
        self._xenctrl.domain_unpause(self.domid)

    def frames(self) -> int | None:
        """How many frames Xen has given it so far; None where there is no such domain any more.

        Raises LibxlsrError where Xen doesn't tell.
        """
        info = self._xenctrl.domain_info(self.domid)
        return None if info is None else info.total_bytes // 4096

    def _store_config(self, raw: bytes) -> None:
        userdata.store_config(self.domid, self.config.uuid, raw, self._host.lib_dir)

    def _is_alive(self, domid: int) -> bool:
        info = self._xenctrl.domain_info(domid)
        return info is not None and not info.dying
