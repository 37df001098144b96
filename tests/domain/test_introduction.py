"""What xenstored is told of a new domain, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from libxlsr.domain.config import read_config
from libxlsr.domain.create import BuildState
from libxlsr.domain.introduction import introduce
from libxlsr.domain.save_helper.parent import Rings
from libxlsr.formats import xl
from libxlsr.testing.fake_xen import FakeXenHost
from libxlsr.xen.xenstore import Xenstore

STATE = BuildState(domid=1, store_port=1, store_domid=0, console_port=2, console_domid=0)
QUOTA = {"quota": [{"name": "nodes", "val": 1000}, {"name": "watches", "val": 128}]}


def told(xen: FakeXenHost, store: Xenstore, tree: dict[str, Any]) -> list[str]:
    """The calls that xenstored gets for a domain."""
    assert xen.add_domain("guest") == STATE.domid
    assert xen.hypervisor.evtchn_alloc_unbound(STATE.domid, 0) == STATE.store_port
    config = read_config(xl.Config.from_json(tree))
    introduce(store, config, STATE, Rings(store_gfn=0xFEFFC, console_gfn=0xFEFFF))
    assert xen.xenstored.introduced == {1: (0xFEFFC, 1)}
    return [call.name for call in xen.calls if "domain" in call.name]


def test_one_without_a_mask_and_quota(
    xen: FakeXenHost, store: Xenstore, tree: dict[str, Any]
) -> None:
    xen.xenstored.features, xen.xenstored.has_quota_of_domains = 0xF, True
    assert told(xen, store, tree) == ["xs_introduce_domain"]
    assert xen.node("/local/domain/1/store/ring-ref") == str(0xFEFFC)
    assert xen.node("/local/domain/1/console/ring-ref") == str(0xFEFFF)


def test_features_before_and_quota_behind_the_introduction(
    xen: FakeXenHost, store: Xenstore, tree: dict[str, Any]
) -> None:
    xen.xenstored.features, xen.xenstored.has_quota_of_domains = 0xF, True
    tree["b_info"].update(xenstore_feature_mask=0x13, xenstore_quota=QUOTA)
    assert told(xen, store, tree) == [
        "xs_set_features_domain",
        "xs_introduce_domain",
        "xs_set_domain_quota",
        "xs_set_domain_quota",
    ]
    assert xen.xenstored.features_of == {1: 0x3}
    assert xen.xenstored.quota_of == {1: {"nodes": 1000, "watches": 128}}


def test_a_xenstored_that_knows_neither(
    xen: FakeXenHost, store: Xenstore, tree: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="libxlsr")
    tree["b_info"].update(xenstore_feature_mask=0x13, xenstore_quota=QUOTA)
    assert told(xen, store, tree) == ["xs_introduce_domain", "xs_set_domain_quota"]
    assert ["all features" in line for line in caplog.messages] == [True, False]
    assert "default quota" in caplog.messages[1]
