"""QEMU's arguments are libxl's, whatever the configuration says."""

from __future__ import annotations

from typing import Any

import pytest

from libxlsr.domain.config import read_config
from libxlsr.domain.device_model.args import Sockets, arguments, environment
from libxlsr.errors import UsageError
from libxlsr.formats import xl

SOCKETS = Sockets("/run/libxl", "/run/xenstat")


@pytest.fixture
def hvm_tree(tree: dict[str, Any]) -> dict[str, Any]:
    tree["c_info"]["type"] = "hvm"
    tree["b_info"]["type.hvm"] = {"vga": {"kind": "none"}, "vnc": {"enable": "False"}}
    return tree


def args(tree: dict[str, Any]) -> list[str]:
    config = read_config(xl.Config.from_json(tree))
    return arguments("/qemu", config, 7, sockets=SOCKETS, state_fd=9)


def following(found: list[str], option: str) -> list[str]:
    """What stands behind each appearance of the option."""
    return [found[index + 1] for index, word in enumerate(found[:-1]) if word == option]


def test_the_plainest_hvm_guest(hvm_tree: dict[str, Any]) -> None:
    # As `xl restore` of Xen 4.17 starts QEMU for such a guest, but for the names of the sockets.
    expected = (
        "/qemu -xen-domid 7 -no-shutdown"
        " -chardev socket,id=libxl-cmd,path=/run/libxl,server=on,wait=off"
        " -mon chardev=libxl-cmd,mode=control"
        " -chardev socket,id=libxenstat-cmd,path=/run/xenstat,server=on,wait=off"
        " -mon chardev=libxenstat-cmd,mode=control"
        " -nodefaults -no-user-config -name guest -vnc none -display none"
        " -boot order=cda -smp 2,maxcpus=2 -net none -incoming fd:9"
        " -machine xenfv,suppress-vmdesc=on -m 128"
    )
    assert " ".join(args(hvm_tree)) == expected


def test_the_backends_of_a_pvh_guest(tree: dict[str, Any]) -> None:
    config = read_config(xl.Config.from_json(tree))
    found = arguments("/qemu", config, 7, sockets=SOCKETS, state_fd=None)
    assert " ".join(found[14:]) == (
        "-xen-attach -name guest -vnc none -display none -nographic -machine xenpv -m 128"
    )


@pytest.mark.parametrize(
    ("hvm", "option", "values"),
    [
        ({"vga": {"kind": "std"}}, "-device", ["VGA,vgamem_mb=16"]),
        ({"vga": {}}, "-device", ["cirrus-vga,vgamem_mb=8"]),
        ({"vga": {"kind": "qxl"}}, "-device", ["qxl-vga,vram_size_mb=64,ram_size_mb=64"]),
        ({"serial": "pty"}, "-serial", ["pty"]),
        ({"serial_list": ["pty", "null"]}, "-serial", ["pty", "null"]),
        ({"boot": "dc"}, "-boot", ["order=dc"]),
        ({"usbdevice": "tablet"}, "-usbdevice", ["tablet"]),
        ({"usbversion": 1}, "-device", ["piix3-usb-uhci,id=usb"]),
        ({"usbversion": 3}, "-device", ["nec-usb-xhci,id=usb"]),
        ({"soundhw": "hda"}, "-device", ["intel-hda", "hda-duplex"]),
        ({"soundhw": "ac97"}, "-device", ["ac97"]),
        ({"keymap": "de"}, "-k", ["de"]),
        ({"vnc": {}}, "-vnc", ["127.0.0.1:0,to=99"]),
        ({"vnc": {"listen": "::1:2", "findunused": "False"}}, "-vnc", ["::1:2"]),
        ({"vnc": {"passwd": "x"}}, "-vnc", ["127.0.0.1:0,password=on,to=99"]),
        ({"vnc": {"listen": "a,b"}}, "-vnc", ["a,,b:0,to=99"]),
        ({"sdl": {"enable": "True"}}, "-display", ["none", "sdl"]),
        ({"xen_platform_pci": "False"}, "-machine", ["pc,accel=xen,suppress-vmdesc=on"]),
        (
            {"mmio_hole_memkb": 1 << 20},
            "-machine",
            ["xenfv,suppress-vmdesc=on,max-ram-below-4g=3221225472"],
        ),
        ({"mmio_hole_memkb": 1}, "-machine", ["xenfv,suppress-vmdesc=on"]),
        ({"hdtype": "ahci"}, "-device", ["ahci,id=ahci0"]),
        ({"vendor_device": "xenserver"}, "-device", ["xen-pvdevice,device-id=0xc000"]),
    ],
)
def test_what_an_hvm_guest_may_have(
    hvm_tree: dict[str, Any], hvm: dict[str, Any], option: str, values: list[str]
) -> None:
    hvm_tree["b_info"]["type.hvm"].update(hvm)
    assert following(args(hvm_tree), option) == values


def test_without_acpi_and_display(hvm_tree: dict[str, Any]) -> None:
    hvm_tree["b_info"]["type.hvm"].update(acpi="False", nographic="True", usb="True")
    assert {"-no-acpi", "-nographic", "-usb"} <= set(args(hvm_tree))


def test_usb_2(hvm_tree: dict[str, Any]) -> None:
    hvm_tree["b_info"]["type.hvm"]["usbversion"] = 2
    assert following(args(hvm_tree), "-device")[1:] == [
        "ich9-usb-uhci1,masterbus=usb.0,firstport=0,addr=0x1d.0x0,multifunction=on",
        "ich9-usb-uhci2,masterbus=usb.0,firstport=2,addr=0x1d.0x1,multifunction=on",
        "ich9-usb-uhci3,masterbus=usb.0,firstport=4,addr=0x1d.0x2,multifunction=on",
    ]


def test_a_kernel_and_extra_arguments(hvm_tree: dict[str, Any]) -> None:
    hvm_tree["b_info"].update(
        kernel="/k", ramdisk="/r", cmdline="a b", extra=["-x", "1"], extra_hvm=["-y"]
    )
    found = args(hvm_tree)
    assert found[found.index("-kernel") :][:6] == [
        "-kernel",
        "/k",
        "-initrd",
        "/r",
        "-append",
        "a b",
    ]
    assert found[found.index("-incoming") :][2:4] == ["-x", "1"]
    assert found[found.index("-machine") + 2] == "-y"


def test_network_cards(hvm_tree: dict[str, Any]) -> None:
    hvm_tree["nics"] = [
        {"devid": 0, "mac": "00:16:3e:01:02:03", "bridge": "br,0", "model": "e1000"},
        {"devid": 1, "mac": "00:16:3e:01:02:04", "nictype": "vif"},
    ]
    found = args(hvm_tree)
    assert following(found, "-device") == ["e1000,id=nic0,netdev=net0,mac=00:16:3e:01:02:03"]
    assert following(found, "-netdev") == [
        "type=tap,id=net0,ifname=vif7.0-emu,br=br,,0,script=no,downscript=no"
    ]
    assert "-net" not in found


def test_disks(hvm_tree: dict[str, Any]) -> None:
    hvm_tree["disks"] = [
        {"vdev": "hda", "pdev_path": "/a,b", "format": "qcow2", "readwrite": 1},
        {"vdev": "xvdb", "pdev_path": "/c", "format": "raw", "readwrite": 1},
        {"vdev": "sdc", "pdev_path": "/d", "format": "vhd"},
        {"vdev": "hdd", "format": "empty", "is_cdrom": 1},
        {"vdev": "xvde", "pdev_path": "/e", "format": "raw", "readwrite": 1},
        {"vdev": "nonsense", "pdev_path": "/f", "format": "raw"},
    ]
    found = args(hvm_tree)
    assert following(found, "-drive") == [
        "file=/a,,b,if=ide,index=0,media=disk,format=qcow2,cache=writeback",
        "file=/c,if=ide,index=1,media=disk,format=raw,cache=writeback",
        "file=/d,id=scsi0-hd2,format=vpc,if=none,readonly=on,cache=writeback",
        "if=none,readonly=on,id=ide-5696",
    ]
    assert following(found, "-device") == [
        "lsi53c895a",
        "scsi-hd,drive=scsi0-hd2,scsi-id=2",
        "ide-cd,id=ide-5696,drive=ide-5696,bus=ide.1,unit=1",
    ]


def test_a_disk_is_where_its_script_has_put_it(hvm_tree: dict[str, Any]) -> None:
    disk = {"pdev_path": "target", "format": "raw", "readwrite": 1, "script": "block-iscsi"}
    hvm_tree["disks"] = [{"vdev": "hda", **disk}, {"vdev": "hdb", **disk}]
    config = read_config(xl.Config.from_json(hvm_tree))
    found = arguments(
        "/qemu", config, 7, sockets=SOCKETS, state_fd=9, script_paths={"hdb": "/dev/sdx"}
    )
    assert following(found, "-drive") == [
        "file=/dev/sdx,if=ide,index=1,media=disk,format=raw,cache=writeback"
    ]


def test_ahci_disks(hvm_tree: dict[str, Any]) -> None:
    hvm_tree["b_info"]["type.hvm"]["hdtype"] = "ahci"
    hvm_tree["disks"] = [{"vdev": "xvdf", "pdev_path": "/a", "format": "raw", "readwrite": 1}]
    found = args(hvm_tree)
    assert following(found, "-drive") == [
        "file=/a,if=none,id=ahcidisk-5,format=raw,cache=writeback"
    ]
    assert following(found, "-device")[1] == "ide-hd,bus=ahci0.5,unit=0,drive=ahcidisk-5"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"disks": [{"vdev": "hda", "pdev_path": "/a", "format": "raw"}]}, "read-only"),
        ({"nics": [{"devid": 0}]}, "no MAC address"),
    ],
)
def test_what_qemu_does_not_have(
    hvm_tree: dict[str, Any], change: dict[str, Any], says: str
) -> None:
    hvm_tree.update(change)
    with pytest.raises(UsageError, match=says):
        args(hvm_tree)


def test_the_environment(hvm_tree: dict[str, Any]) -> None:
    hvm_tree["b_info"]["type.hvm"]["sdl"] = {"enable": "True", "display": ":1"}
    config = read_config(xl.Config.from_json(hvm_tree))
    assert environment(config, 7) == {
        "XEN_QEMU_CONSOLE_LIMIT": "1048576",
        "DISPLAY": ":1",
        "XEN_DOMAIN_ID": "7",
    }
