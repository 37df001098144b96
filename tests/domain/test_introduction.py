"""What xenstored is told of a new domain, and in which order."""

from __future__ import annotations

from typing import Any, cast

import pytest

from libxlsr.domain.config import read_config
from libxlsr.domain.create import BuildState
from libxlsr.domain.introduction import introduce
from libxlsr.domain.save_helper.parent import Rings
from libxlsr.formats import xl
from libxlsr.xen.xenstore import Xenstore

from .fake_host import FakeXenstore

STATE = BuildState(domid=7, store_port=1, store_domid=0, console_port=2, console_domid=0)
QUOTA = {"quota": [{"name": "nodes", "val": 1000}, {"name": "watches", "val": 128}]}


class Telling(FakeXenstore):
    """Tells what is asked of it. ``features`` is None for a xenstored that knows of none."""

    def __init__(self, *, features: int | None, quota: bool) -> None:
        super().__init__()
        self.told: list[str] = []
        self.features = features
        self.quota = quota

    def features_supported(self) -> int | None:
        return self.features

    def set_features_domain(self, domid: int, features: int) -> None:
        self.told.append(f"features {domid} {features:#x}")

    def introduce_domain(self, domid: int, gfn: int, port: int) -> None:
        self.told.append(f"introduce {domid} {gfn:#x} {port}")

    def set_domain_quota(self, domid: int, quota: str, value: int) -> bool:
        self.told.append(f"quota {domid} {quota} {value}")
        return self.quota


def told(store: Telling, tree: dict[str, Any]) -> list[str]:
    config = read_config(xl.Config.from_json(tree))
    introduce(cast(Xenstore, store), config, STATE, Rings(store_gfn=0xFEFFC, console_gfn=0xFEFFF))
    return store.told


def test_one_without_a_mask_and_quota(tree: dict[str, Any]) -> None:
    store = Telling(features=0xF, quota=True)
    assert told(store, tree) == ["introduce 7 0xfeffc 1"]
    assert store.values["/local/domain/7/store/ring-ref"] == str(0xFEFFC)
    assert store.values["/local/domain/7/console/ring-ref"] == str(0xFEFFF)


def test_features_before_and_quota_behind_the_introduction(tree: dict[str, Any]) -> None:
    tree["b_info"].update(xenstore_feature_mask=0x13, xenstore_quota=QUOTA)
    assert told(Telling(features=0xF, quota=True), tree) == [
        "features 7 0x3",
        "introduce 7 0xfeffc 1",
        "quota 7 nodes 1000",
        "quota 7 watches 128",
    ]


def test_a_xenstored_that_knows_neither(
    tree: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="libxlsr")
    tree["b_info"].update(xenstore_feature_mask=0x13, xenstore_quota=QUOTA)
    assert told(Telling(features=None, quota=False), tree) == [
        "introduce 7 0xfeffc 1",
        "quota 7 nodes 1000",
    ]
    assert ["all features" in line for line in caplog.messages] == [True, False]
    assert "default quota" in caplog.messages[1]
