"""The nodes of a new domain. tests/xenlab compares all of them with xl's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from libxlsr.formats import xl
from libxlsr.targets.xen import xenstore_nodes
from libxlsr.targets.xen.config import read_config
from libxlsr.targets.xen.create import BuildState
from libxlsr.xen.xenstore import Perm, Permission

STATE = BuildState(domid=7, store_port=1, store_domid=0, console_port=2, console_domid=0)


class Store:
    """xenstore as far as a domain's nodes are made in it: the permissions of each."""

    def __init__(self) -> None:
        self.permissions: dict[str, list[Permission]] = {}

    def transact(self, body: Callable[[Store], None]) -> None:
        body(self)

    def rm(self, path: str) -> None:
        pass

    def directory(self, path: str) -> None:
        pass

    def mkdir(self, path: str) -> None:
        pass

    def write(self, path: str, value: str) -> None:
        self.permissions[path] = []

    def set_permissions(self, path: str, permissions: list[Permission]) -> None:
        self.permissions[path] = permissions


@pytest.mark.parametrize("driver_domain", [True, False])
def test_a_driver_domain_has_nodes_for_a_toolstack(
    tree: dict[str, Any], driver_domain: bool
) -> None:
    tree["c_info"]["driver_domain"] = str(driver_domain)
    store = Store()
    config = read_config(xl.Config.from_json(tree))
    xenstore_nodes.create(store, config, STATE)  # type: ignore[arg-type]
    its_own = [Permission(7, Perm.NONE)] if driver_domain else None
    assert store.permissions.get("/local/domain/7/libxl") == its_own
    assert store.permissions.get("/local/domain/7/device-model") == its_own
