"""Which devices are attached, in which order, and what libxl is told of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from libxlsr.domain.config import read_config
from libxlsr.domain.devices.plan import (
    BATCH_MAX,
    Device,
    Plan,
    batch_words,
    batches,
    plan,
    writable_files,
)
from libxlsr.domain.libxl_files import userdata
from libxlsr.formats import xl
from libxlsr.helper.protocol import MESSAGE_MAX, encode


def planned(tree: dict[str, Any]) -> Plan:
    return plan(read_config(xl.Config.from_json(tree)))


def words(devices: tuple[Device, ...]) -> list[str]:
    return [device.words for device in devices]


@pytest.fixture
def devices(tree: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The guest with a disk of QEMU's, one of a script's, a card and a screen."""
    tree["disks"] = [
        {"vdev": "xvda", "pdev_path": str(tmp_path / "a"), "format": "qcow2", "readwrite": 1},
        {"vdev": "xvdb", "pdev_path": "b", "format": "raw", "script": "block"},
    ]
    tree["nics"] = [{"mac": "00:16:3e:00:00:01"}]
    tree["vfbs"] = [{}]
    tree["vkbs"] = [{}]
    return tree


def test_no_device(tree: dict[str, Any]) -> None:
    assert not planned(tree)


def test_what_is_qemus_comes_after_it(devices: dict[str, Any]) -> None:
    found = planned(devices)
    assert words(found.before_device_model) == ["framebuffer", "keyboard", "disk xvdb (b)"]
    disk, card = words(found.after_device_model)
    assert disk.startswith("disk xvda (")
    assert card == "network card 0"


def test_the_screen_of_an_hvm_guest_is_its_device_models(devices: dict[str, Any]) -> None:
    devices["c_info"]["type"] = "hvm"
    devices["b_info"]["type.hvm"] = devices["b_info"].pop("type.pvh")
    assert words(planned(devices).before_device_model) == ["disk xvdb (b)"]


@pytest.mark.parametrize(("kind", "nictype"), [("hvm", "vif_ioemu"), ("pvh", "vif")])
def test_a_card_is_what_a_restore_of_libxl_makes_it(
    tree: dict[str, Any], kind: str, nictype: str
) -> None:
    tree["c_info"]["type"] = kind
    tree["b_info"] = {**tree["b_info"], f"type.{kind}": {}}
    tree["nics"] = [{}, {"devid": 7}]
    cards = [device.json for device in planned(tree).after_device_model]
    assert cards == [{"devid": 0, "nictype": nictype}, {"devid": 7, "nictype": nictype}]


def test_only_the_guests_own_files(devices: dict[str, Any], tmp_path: Path) -> None:
    disks = read_config(xl.Config.from_json(devices)).disks
    assert writable_files(disks) == [str(tmp_path / "a")]


def test_batches_are_bounded_and_lose_nothing() -> None:
    many = [Device("disks", {"pdev_path": "x" * 5000, "n": n}, str(n)) for n in range(40)]
    found = list(batches(many))
    assert [device for batch in found for device in batch] == many
    assert len(found) > 1
    assert all(len(json.dumps([d.json for d in batch])) < BATCH_MAX + 1024 for batch in found)


def test_a_message_holds_a_batch_of_many_small_devices() -> None:
    for batch in batches([Device("nics", {}, f"network card {n}") for n in range(2000)]):
        work = [device.work() for device in batch]
        assert len(encode("reply", value={"devices": work})) <= MESSAGE_MAX


def test_a_large_batch_is_named_in_short() -> None:
    many = [Device("nics", {}, f"card {n}") for n in range(9)]
    assert batch_words(many[:2]) == "card 0, the card 1"
    assert batch_words(many) == "card 0, the card 1, the card 2, the card 3 and 5 more devices"


# What libxl finds written down, before it attaches anything and afterwards.


def decoded(raw: bytes) -> dict[str, Any]:
    return xl.Config.decode(raw).json


def test_libxl_is_told_of_no_device_before_it_attaches_it(devices: dict[str, Any]) -> None:
    before = decoded(userdata.without_attached(devices))
    assert "disks" not in before
    assert "nics" not in before
    assert "vfbs" not in before
    assert before["c_info"]["name"] == "guest"


def test_what_libxl_notes_is_kept_in_the_images_order(devices: dict[str, Any]) -> None:
    noted = {
        "disks": [{"vdev": "xvdb", "backend": "phy"}, {"vdev": "xvda", "backend": "qdisk"}],
        "nics": [{"devid": 0, "mac": "00:16:3e:12:34:56"}],
    }
    after = decoded(userdata.with_attached(devices, noted))
    assert [disk["vdev"] for disk in after["disks"]] == ["xvda", "xvdb"]
    assert after["disks"][1]["backend"] == "phy"
    assert after["nics"] == noted["nics"]
    assert after["vkbs"] == [{}]


def test_a_disk_that_is_not_the_images_is_kept(devices: dict[str, Any]) -> None:
    noted = {"disks": [{"vdev": "xvdz"}, {"vdev": "xvda"}], "nics": []}
    after = decoded(userdata.with_attached(devices, noted))
    assert [disk["vdev"] for disk in after["disks"]] == ["xvdz", "xvda"]
