"""What is said of a domain before it is made: devices that can't be brought back."""

from __future__ import annotations

from typing import Any

import pytest

from libxlsr.domain import preflight
from libxlsr.domain.config import read_config
from libxlsr.formats import xl

PCI_DEVICE = {"func": 0, "dev": 0, "bus": 3, "domain": 0}


def problems(tree: dict[str, Any]) -> list[str]:
    return list(preflight.device_problems(read_config(xl.Config.from_json(tree))))


def test_nothing_is_said_of_a_guest_without(tree: dict[str, Any]) -> None:
    tree["c_info"]["passthrough"] = "disabled"
    assert problems({**tree, "pcidevs": [], "p9s": []}) == []


@pytest.mark.parametrize("domain_type", ["pv", "pvh", "hvm"])
def test_pci_devices_that_are_passed_through(tree: dict[str, Any], domain_type: str) -> None:
    tree["c_info"]["type"] = domain_type
    assert problems({**tree, "pcidevs": [PCI_DEVICE, {**PCI_DEVICE, "dev": 1}]}) == [
        "it has PCI devices passed through (2), which can't be restored"
    ]


@pytest.mark.parametrize("mode", ["enabled", "sync_pt", "share_pt", "unknown"])
def test_a_guest_that_devices_may_be_passed_to_later(tree: dict[str, Any], mode: str) -> None:
    tree["c_info"]["passthrough"] = mode
    assert problems(tree) == ["it is set up for device passthrough, which can't be restored"]


def test_a_graphics_card_that_is_passed_through(tree: dict[str, Any]) -> None:
    tree["c_info"]["type"] = "hvm"
    tree["b_info"]["type.hvm"] = {"gfx_passthru": "True"}
    assert problems(tree) == ["it has a graphics card passed through, which can't be restored"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("rdms", "reserved device memory"),
        ("dtdevs", "device tree devices"),
        ("virtios", "virtio devices"),
        ("vtpms", "virtual TPMs"),
        ("p9s", "9pfs shares"),
        ("pvcallsifs", "PV calls interfaces"),
        ("vdispls", "PV displays"),
        ("vsnds", "PV sound devices"),
        ("channels", "channels"),
        ("usbctrls", "USB controllers"),
        ("usbdevs", "USB devices"),
    ],
)
def test_each_other_kind_is_named_in_words(tree: dict[str, Any], kind: str, words: str) -> None:
    assert problems({**tree, kind: [{}]}) == [f"it has {words} (1), which can't be restored"]


def test_all_are_said_at_once(tree: dict[str, Any]) -> None:
    tree["c_info"]["passthrough"] = "enabled"
    said = problems({**tree, "pcidevs": [PCI_DEVICE], "p9s": [{}]})
    assert [line.split(",")[0] for line in said] == [
        "it has PCI devices passed through (1)",
        "it has 9pfs shares (1)",
        "it is set up for device passthrough",
    ]
