"""The nodes of a new domain. tests/xenlab compares all of them with xl's."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from libxlsr.domain import nodes as xenstore_nodes
from libxlsr.domain.config import DomainConfig, read_config
from libxlsr.domain.create import BuildState
from libxlsr.errors import TargetError
from libxlsr.formats import xl
from libxlsr.testing.fake_xen import FakeXenHost
from libxlsr.xen.xenstore import Perm, Permission, Xenstore

STATE = BuildState(domid=7, store_port=1, store_domid=0, console_port=2, console_domid=0)
OTHER = dataclasses.replace(STATE, domid=8)


@pytest.fixture
def config(image_config: xl.Config) -> DomainConfig:
    return read_config(image_config)


def create(
    store: Xenstore, config: DomainConfig, state: BuildState, *, all_dead: bool = False
) -> None:
    xenstore_nodes.create(store, config, state, is_alive=lambda _domid: not all_dead)


def remove(store: Xenstore, config: DomainConfig, state: BuildState) -> None:
    xenstore_nodes.remove(store, config, state)


@pytest.mark.parametrize("driver_domain", [True, False])
def test_a_driver_domain_has_nodes_for_a_toolstack(
    store: Xenstore, tree: dict[str, Any], driver_domain: bool
) -> None:
    tree["c_info"]["driver_domain"] = str(driver_domain)
    create(store, read_config(xl.Config.from_json(tree)), STATE)
    its_own = [Permission(7, Perm.NONE)] if driver_domain else None
    assert store.get_permissions("/local/domain/7/libxl") == its_own
    assert store.get_permissions("/local/domain/7/device-model") == its_own


@pytest.mark.parametrize("compatible", [True, False])
def test_old_drivers_that_take_the_suspend_node_for_a_device(
    store: Xenstore, tree: dict[str, Any], compatible: bool
) -> None:
    tree["c_info"]["xend_suspend_evtchn_compat"] = str(compatible)
    create(store, read_config(xl.Config.from_json(tree)), STATE)
    assert (store.read("/local/domain/7/device/suspend") is not None) is not compatible
    permissions = store.get_permissions("/local/domain/7/device")
    assert permissions is not None
    assert permissions[0].domid == (7 if compatible else 0)


def test_the_device_models_version_is_the_one_that_runs(
    store: Xenstore, tree: dict[str, Any]
) -> None:
    tree["b_info"]["device_model_version"] = "unknown"
    create(store, read_config(xl.Config.from_json(tree)), STATE)
    assert store.read("/libxl/7/dm-version") == "qemu_xen"


@pytest.mark.parametrize(("name", "what"), [("other", "UUID"), ("guest", "name")])
def test_the_second_with_a_name_or_uuid_changes_nothing(
    xen: FakeXenHost, store: Xenstore, config: DomainConfig, name: str, what: str
) -> None:
    create(store, config, STATE)
    before = xen.xenstored.values
    with pytest.raises(TargetError, match=f"domain 7 has the {what}"):
        create(store, dataclasses.replace(config, name=name), OTHER)
    assert xen.xenstored.values == before


def test_what_a_dead_domain_left_stands_in_nobodys_way(
    store: Xenstore, config: DomainConfig
) -> None:
    create(store, config, STATE)
    create(store, config, OTHER, all_dead=True)
    assert store.read("/local/domain/8/name") == "guest"


def test_all_is_removed(xen: FakeXenHost, store: Xenstore, config: DomainConfig) -> None:
    before = xen.xenstored.values
    create(store, config, STATE)
    remove(store, config, STATE)
    assert xen.xenstored.values == before


def test_a_uuid_that_has_become_anothers_is_left_alone(
    xen: FakeXenHost, store: Xenstore, config: DomainConfig
) -> None:
    """libxl has destroyed domain 7 with its nodes, and the next restore was quick."""
    create(store, config, STATE)
    remove(store, config, STATE)
    create(store, config, OTHER)
    before = xen.xenstored.values
    remove(store, config, STATE)
    assert xen.xenstored.values == before
