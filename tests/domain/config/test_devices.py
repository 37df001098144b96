"""What the configuration says of devices and of an HVM guest, with libxl's defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from libxlsr.domain.config import DomainConfig, read_config
from libxlsr.domain.config.devices import DiskPlace, Screen
from libxlsr.domain.devices.backend import in_qemu
from libxlsr.errors import StreamError
from libxlsr.formats import xl


@pytest.fixture
def hvm_tree(tree: dict[str, Any]) -> dict[str, Any]:
    tree["c_info"]["type"] = "hvm"
    tree["b_info"]["type.hvm"] = {}
    return tree


def read(tree: dict[str, Any]) -> DomainConfig:
    return read_config(xl.Config.from_json(tree))


@pytest.mark.parametrize(
    ("vdev", "kind", "disk", "partition", "number"),
    [
        ("xvda", "xvd", 0, 0, 51712),
        ("xvdb1", "xvd", 1, 1, 51729),
        ("xvdq", "xvd", 16, 0, 268439552),
        ("xvdaa", "xvd", 26, 0, 268442112),
        ("d3p2", "xvd", 3, 2, 51762),
        ("hda", "hd", 0, 0, 768),
        ("hdb", "hd", 1, 0, 832),
        ("hdc", "hd", 2, 0, 5632),
        ("hdd", "hd", 3, 0, 5696),
        ("sdb", "sd", 1, 0, 2064),
    ],
)
def test_a_disks_number(vdev: str, kind: str, disk: int, partition: int, number: int) -> None:
    place = DiskPlace.of(vdev)
    assert place == DiskPlace(kind, disk, partition)
    assert place.number == number


@pytest.mark.parametrize("vdev", ["", "hde", "sdq", "xvd", "xvda256", "hda0", "vda", "hda;", "768"])
def test_no_disks_number(vdev: str) -> None:
    assert DiskPlace.of(vdev) is None


def test_an_hvm_guest_has_libxls_defaults(hvm_tree: dict[str, Any]) -> None:
    config = read(hvm_tree)
    hvm, vnc = config.hvm, config.screen.vnc
    assert hvm is not None
    assert vnc is not None
    assert (vnc.listen, vnc.display, vnc.find_unused) == ("127.0.0.1", 0, True)
    assert (hvm.bios, hvm.vga, hvm.boot) == ("seabios", "cirrus", "cda")
    assert (hvm.acpi, hvm.platform_pci, hvm.vkb, hvm.hpet, hvm.vpt_align) == (True,) * 5
    assert hvm.generation_id is None
    assert config.video_memkb == 8192


def test_another_guest_has_no_screen_of_its_own(tree: dict[str, Any]) -> None:
    config = read(tree)
    assert (config.hvm, config.screen) == (None, Screen())


def test_a_framebuffer_is_the_screen(tree: dict[str, Any]) -> None:
    tree["vfbs"] = [{"vnc": {"enable": "True", "passwd": "x"}, "keymap": "de"}]
    screen = read(tree).screen
    assert screen.vnc is not None
    assert (screen.vnc.password, screen.keymap) == ("x", "de")


def test_network_cards_get_the_lowest_free_number(hvm_tree: dict[str, Any]) -> None:
    hvm_tree["nics"] = [{"devid": 1}, {}, {"nictype": "vif"}]
    nics = read(hvm_tree).nics
    assert [nic.devid for nic in nics] == [1, 0, 2]
    assert [nic.emulated for nic in nics] == [True, True, False]
    assert (nics[1].model, nics[1].bridge, nics[1].mac) == ("rtl8139", "xenbr0", None)


@pytest.mark.parametrize(
    ("disk", "behind_qemu"),
    [
        ({"backend": "qdisk", "format": "raw"}, True),
        ({"backend": "phy", "format": "raw"}, False),
        ({"format": "qcow2"}, True),
        ({"format": "raw"}, False),
        ({"format": "raw", "pdev_path": "/dev/null"}, True),
        ({"format": "raw", "script": "block-iscsi"}, False),
        ({"format": "raw", "specification": "virtio"}, False),
    ],
)
def test_whose_disk_it_is(
    tree: dict[str, Any], tmp_path: Path, disk: dict[str, Any], behind_qemu: bool
) -> None:
    image = tmp_path / "image"
    image.touch()
    tree["disks"] = [{"vdev": "xvda", "pdev_path": str(image), **disk}]
    (read_disk,) = read(tree).disks
    assert in_qemu(read_disk) is behind_qemu


@pytest.mark.parametrize(
    ("member", "value", "says"),
    [
        ("device_model_version", "qemu_xen_traditional", "qemu_xen_traditional"),
        ("device_model_stubdomain", "True", "stub domain"),
        ("dm_restrict", "True", "dm_restrict"),
        ("device_model_user", "qemu", "as the user qemu, "),
        ("ioports", [{"first": 1, "number": 1}], "I/O ports"),
        ("irqs", [3], "IRQs"),
        ("iomem", [{"start": 1}], "I/O memory"),
        ("trap_unmapped_accesses", "True", "--config-override b_info.trap_unmapped_accesses=False"),
    ],
)
def test_what_can_not_be_done(
    hvm_tree: dict[str, Any], member: str, value: object, says: str
) -> None:
    hvm_tree["b_info"][member] = value
    (sentence,) = read(hvm_tree).unsupported
    assert says in sentence


@pytest.mark.parametrize("user", ["", None])
def test_no_user_of_the_device_model(hvm_tree: dict[str, Any], user: str | None) -> None:
    hvm_tree["b_info"]["device_model_user"] = user
    assert read(hvm_tree).unsupported == ()


def test_of_a_pv_guest_the_device_model_is_roots_whatever_its_user(tree: dict[str, Any]) -> None:
    tree["b_info"]["device_model_user"] = "qemu"
    assert read(tree).unsupported == ()


@pytest.mark.parametrize(
    ("member", "value", "says"),
    [
        ("bios", "rombios", "rombios"),
        ("spice", {"enable": "True"}, "SPICE"),
        ("gfx_passthru", "True", "graphics card"),
    ],
)
def test_what_an_hvm_guest_can_not_have(
    hvm_tree: dict[str, Any], member: str, value: object, says: str
) -> None:
    hvm_tree["b_info"]["type.hvm"][member] = value
    (sentence,) = read(hvm_tree).unsupported
    assert says in sentence


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("vga", {"kind": "monochrome"}),
        ("bios", 7),
        ("soundhw", "theremin,x=y"),
        ("serial", "pty\n"),
        ("serial_list", "pty"),
        ("boot", "c\0d"),
        ("usbversion", 4),
        ("ms_vm_genid", [256]),
        ("ms_vm_genid", [1] * 15),
        ("ms_vm_genid", [True]),
        ("usbdevice_list", [1]),
        ("vnc", {"display": -1}),
        ("vnc", []),
    ],
)
def test_wrong_values_are_named(hvm_tree: dict[str, Any], member: str, value: object) -> None:
    hvm_tree["b_info"]["type.hvm"][member] = value
    with pytest.raises(StreamError, match=member):
        read(hvm_tree)


@pytest.mark.parametrize(
    ("kind", "item"),
    [
        ("disks", "xvda"),
        ("disks", {"vdev": 1}),
        ("disks", {"format": "tar"}),
        ("disks", {"pdev_path": "/a\nb"}),
        ("nics", {"mac": "00:16:3e:00:00"}),
        ("nics", {"devid": 1 << 20}),
        ("nics", {"bridge": "\x7f"}),
    ],
)
def test_wrong_devices(hvm_tree: dict[str, Any], kind: str, item: object) -> None:
    hvm_tree[kind] = [item]
    with pytest.raises(StreamError):
        read(hvm_tree)


def test_too_many_devices(hvm_tree: dict[str, Any]) -> None:
    hvm_tree["nics"] = [{}] * 1025
    with pytest.raises(StreamError, match="at most 1024"):
        read(hvm_tree)
