"""What stands in the way of a restore, before a domain is made."""

from __future__ import annotations

import os
from typing import Any, cast

import pytest

from libxlsr.domain import preflight
from libxlsr.domain.config import read_config
from libxlsr.domain.config.overrides import apply_overrides
from libxlsr.domain.host import XenHost
from libxlsr.domain.preflight import guest_type_problems
from libxlsr.errors import TargetError
from libxlsr.formats import xl
from libxlsr.xen.hostinfo import PhysInfo

from .hosts import HOST


@pytest.mark.parametrize("user", [1, 1000, 65534])
def test_it_takes_root(monkeypatch: pytest.MonkeyPatch, user: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(TargetError, match=r"takes root; .*sudo.*--target image"):
        XenHost().require_root()


def test_root_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    XenHost().require_root()


@pytest.mark.parametrize(
    ("kind", "lacks", "problem"),
    [
        ("pv", {"pv": False}, "no PV guests (Xen was built or booted without them)"),
        ("pvh", {"hvm": False}, "no PVH guests (no VT-x or AMD-V, or switched off)"),
        ("hvm", {"hvm": False}, "no HVM guests (no VT-x or AMD-V, or switched off)"),
        ("pvh", {"hap": False, "shadow": False}, "neither hardware-assisted nor shadow"),
        ("hvm", {"hap": False, "shadow": False}, "neither hardware-assisted nor shadow"),
    ],
)
def test_what_the_host_can_not_run(
    tree: dict[str, Any], kind: str, lacks: dict[str, bool], problem: str
) -> None:
    tree["c_info"]["type"] = kind
    config = read_config(xl.Config.from_json(tree))
    assert list(guest_type_problems(config, HOST)) == []
    (found,) = guest_type_problems(config, HOST._replace(**lacks))
    assert problem in found


@pytest.mark.parametrize(
    ("kind", "irrelevant"), [("pv", {"hvm": False, "hap": False}), ("pvh", {"pv": False})]
)
def test_what_another_kind_would_need(
    tree: dict[str, Any], kind: str, irrelevant: dict[str, bool]
) -> None:
    tree["c_info"]["type"] = kind
    config = read_config(xl.Config.from_json(tree))
    assert list(guest_type_problems(config, HOST._replace(**irrelevant))) == []


def test_a_domain_that_insists_on_hap(tree: dict[str, Any]) -> None:
    tree["c_info"]["hap"] = "True"
    config = read_config(xl.Config.from_json(tree))
    (found,) = guest_type_problems(config, HOST._replace(hap=False))
    assert "wants hardware-assisted paging, which this host lacks" in found


def test_the_hosts_memory_map_can_be_dropped(tree: dict[str, Any]) -> None:
    tree["c_info"]["type"] = "pv"
    tree["b_info"]["type.pv"] = {"e820_host": "True"}
    image = xl.Config.from_json(tree)
    (found,) = guest_type_problems(read_config(image), HOST)
    assert "memory map (e820_host)" in found
    override = found.rpartition("--config-override ")[2].rstrip(")").split("=")
    changed = apply_overrides(image, [(override[0], override[1])])
    assert list(guest_type_problems(read_config(changed), HOST)) == []


def test_one_message_names_every_problem(image_config: xl.Config) -> None:
    class Host:
        def physinfo(self) -> PhysInfo:
            return HOST._replace(hvm=False, free_bytes=0)

        def domains(self) -> list[Any]:
            return []

        def read(self, _path: str) -> None:
            return None

    xen, here = cast(Any, Host()), XenHost()
    with pytest.raises(TargetError) as caught:
        preflight.check(read_config(image_config), here, xen, xen, may_balloon=False)
    assert "can't be restored here: this host runs no PVH guests" in str(caught.value)
    assert "KiB are missing" in str(caught.value)
    with pytest.raises(TargetError) as caught:
        preflight.check(read_config(image_config), here, xen, xen, may_balloon=True)
    assert "KiB are missing" not in str(caught.value)


def labels_refused(tree: dict[str, Any]) -> list[str]:
    return list(preflight.label_problems(read_config(xl.Config.from_json(tree))))


@pytest.mark.parametrize(
    ("section", "member"), [("c_info", "ssid_label"), ("b_info", "exec_ssid_label")]
)
def test_a_label_is_refused(tree: dict[str, Any], section: str, member: str) -> None:
    tree[section][member] = "system_u:system_r:domU_t"
    (sentence,) = labels_refused(tree)
    assert "the XSM label system_u:system_r:domU_t, " in sentence
    assert f"--config-override {section}.{member}=null" in sentence


def test_both_labels_are_named(tree: dict[str, Any]) -> None:
    tree["c_info"]["ssid_label"] = "early"
    tree["b_info"]["exec_ssid_label"] = "late\x1b"
    first, second = labels_refused(tree)
    assert "label early," in first
    assert "label late\\x1b," in second


def test_no_label_is_none(tree: dict[str, Any]) -> None:
    tree["c_info"].update(ssidref=11, ssid_label="")
    tree["b_info"].update(exec_ssid_label=None, device_model_ssid_label="a stub domain's")
    assert labels_refused(tree) == []
