"""What stands in the way of a restore, before a domain is made."""

from __future__ import annotations

from typing import Any

import pytest

from libxlsr.formats import xl
from libxlsr.targets.xen import preflight
from libxlsr.targets.xen.config import read_config


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
