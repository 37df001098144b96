"""What is said of devices before a domain is made for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from libxlsr.domain.config import read_config
from libxlsr.domain.config.devices import Disk
from libxlsr.domain.devices import checks as device_checks
from libxlsr.domain.host import XenHost
from libxlsr.formats import xl

from ..hosts import host_below


@pytest.fixture
def host(tmp_path: Path) -> XenHost:
    """With the scripts that are needed, one bridge and an interface."""
    host = host_below(tmp_path / "host")
    for name in ("block", "vif-bridge", "vif-openvswitch"):
        (host.script_dir / name).touch(mode=0o755)
    (host.sys / "class/net/xenbr0/bridge").mkdir(parents=True)
    (host.sys / "class/net/eth0").mkdir()
    return host


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.touch()
    return path


def disk_of(tree: dict[str, Any], **members: object) -> Disk:
    wanted = {"vdev": "xvda", "format": "raw", "readwrite": 1, **members}
    (disk,) = read_config(xl.Config.from_json({**tree, "disks": [wanted]})).disks
    return disk


def of_disk(host: XenHost, disk: Disk, *users: tuple[int, str, bool]) -> str:
    return "; ".join(device_checks.disk_problems(disk, host, list(users)))


def test_a_file_that_is_there(host: XenHost, tree: dict[str, Any], file: Path) -> None:
    assert of_disk(host, disk_of(tree, pdev_path=str(file))) == ""
    assert of_disk(host, disk_of(tree, pdev_path=str(file), script="block")) == ""


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"pdev_path": "/nowhere/disk"}, "disk xvda (/nowhere/disk): No such file or directory"),
        ({"pdev_path": "/dev/null"}, "neither a file nor a block device"),
        ({"pdev_path": "/proc"}, "neither a file nor a block device"),
        ({}, "disk xvda names no file"),
        ({"vdev": "nonsense"}, "no name that Xen knows"),
        ({"pdev_path": "/d", "backend_domname": "store"}, "is served by domain store"),
        ({"pdev_path": "/d", "specification": "virtio"}, "is a virtio disk"),
        ({"pdev_path": "x", "script": "block-iscsi"}, "script block-iscsi of disk xvda (x) is not"),
        ({"pdev_path": "x", "script": "../evil"}, "script ../evil of disk xvda (x) is not in"),
    ],
)
def test_a_disk_that_can_not_be_had(
    host: XenHost, tree: dict[str, Any], members: dict[str, Any], said: str
) -> None:
    assert said in of_disk(host, disk_of(tree, **members))


def test_a_file_gets_a_loop_device_from_the_block_script(
    host: XenHost, tree: dict[str, Any], file: Path
) -> None:
    assert of_disk(host, disk_of(tree, pdev_path=str(file), backend="phy")) == ""


def test_an_empty_drive(host: XenHost, tree: dict[str, Any]) -> None:
    assert of_disk(host, disk_of(tree, format="empty", is_cdrom=1, readwrite=0)) == ""


@pytest.mark.parametrize(
    ("readwrite", "other_writes", "refused"),
    [(1, False, True), (0, True, True), (1, True, True), (0, False, False)],
)
def test_a_disk_of_another_domain(
    host: XenHost,
    tree: dict[str, Any],
    file: Path,
    readwrite: int,
    other_writes: bool,
    refused: bool,
) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    disk = disk_of(tree, pdev_path=str(link), readwrite=readwrite)
    said = of_disk(host, disk, (7, str(file), other_writes))
    assert ("is in use by domain 7" in said) == refused


def test_a_script_that_can_not_be_run(host: XenHost, tree: dict[str, Any]) -> None:
    (host.script_dir / "block-mine").touch(mode=0o644)
    disk = disk_of(tree, pdev_path="x", script="block-mine")
    assert "can't be run" in of_disk(host, disk)
    absolute = disk_of(tree, pdev_path="x", script=str(host.script_dir / "block-mine"))
    assert "can't be run" in of_disk(host, absolute)


# Network cards.


def of_nic(host: XenHost, **members: object) -> str:
    return "; ".join(device_checks.nic_problems(0, members, host))


def test_a_bridge_that_is_there(host: XenHost) -> None:
    assert of_nic(host) == ""
    assert of_nic(host, bridge="xenbr0") == ""


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"bridge": "nobr0"}, "wants the bridge nobr0, which does not exist here"),
        ({"bridge": "eth0"}, "wants the bridge eth0, which does not exist here"),
        ({"bridge": "../net/xenbr0"}, "which does not exist here"),
        ({"bridge": 5}, "the bridge of network card 0 is not a printable string"),
        ({"script": "vif-\n"}, "the script of network card 0 is not a printable string"),
        ({"script": "vif-none"}, "script vif-none of network card 0 is not here"),
        ({"ifname": "eth0"}, "the name eth0 of network card 0 is taken"),
        ({"backend_domname": "net"}, "network card 0 is served by domain net"),
    ],
)
def test_a_card_that_can_not_be_had(host: XenHost, members: dict[str, Any], said: str) -> None:
    assert said in of_nic(host, **members)


def test_what_only_another_script_understands(host: XenHost) -> None:
    assert of_nic(host, bridge="ovsbr0.7", script="vif-openvswitch") == ""
