"""Devices that can't be attached: one clear message each, and nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from libxlsr.errors import Aborted, TargetError, TimedOut
from libxlsr.events import Ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.timeouts import Timeouts
from libxlsr.testing.leaks import children

from .points import spread
from .restoring import aborted_while_finishing, loop, was_undone
from .state import HostState

SCRIPTS = Path("/etc/xen/scripts")
HOTPLUG_TIMEOUT = 1.0

FAILS = """\
#!/bin/sh
[ $1 = remove ] && exit 0
xenstore-write $XENBUS_PATH/hotplug-error "no luck today"
exit 1
"""
HUNG = Path("/run/lab-hangs")
# A loop device that it has not told anybody of, and a child of its own.
HANGS = f"""\
#!/bin/bash
[ $1 = remove ] && exit 0
losetup -f $(xenstore-read $XENBUS_PATH/params)
touch {HUNG}
sleep 1000
"""
# A card's script has other words for it: online and offline.
CARD_HANGS = f"""\
#!/bin/bash
[ $1 = offline ] && exit 0
touch {HUNG}
sleep 1000
"""

pytestmark = pytest.mark.usefixtures("unchanged_host")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(bytes(1 << 20))
    return path


@pytest.fixture
def script() -> Iterator[Callable[[str, str], str]]:
    """Puts hotplug scripts where Xen's are."""
    made = []

    def put(name: str, text: str) -> str:
        path = SCRIPTS / name
        path.write_text(text)
        path.chmod(0o755)
        made.append(path)
        return name

    yield put
    for path in made:
        path.unlink()
    HUNG.unlink(missing_ok=True)


def disk_of(path: Path, **members: object) -> dict[str, Any]:
    return {"vdev": "xvda", "pdev_path": str(path), "format": "raw", "readwrite": 1, **members}


def restore(
    image: Path, act: Callable[[Ao[Any]], None] | None = None, hotplug: float | None = 40.0
) -> None:
    """Restore it; ``act`` is called when the script hangs."""
    ctx = loop().ctx
    fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        ao, _target = loop().start(fd, RestoreOptions(timeouts=Timeouts(hotplug=hotplug)))

        def look() -> None:
            if HUNG.exists() and act is not None:
                act(ao)
            else:
                ctx.call_later(0.1, look)

        if act is not None:
            ctx.call_soon(look)
        loop().run(ao)
        ao.result()
    finally:
        os.close(fd)


def test_a_script_that_fails(
    image_with: Callable[..., Path], disk: Path, script: Callable[[str, str], str]
) -> None:
    name = script("block-lab-fails", FAILS)
    with pytest.raises(TargetError, match=r"could not attach its disk xvda .*no luck today"):
        restore(image_with(disks=[disk_of(disk, script=name)]))


def test_a_script_that_hangs(
    image_with: Callable[..., Path], disk: Path, script: Callable[[str, str], str]
) -> None:
    name = script("block-lab-hangs", HANGS)
    with pytest.raises(TimedOut, match=r"attaching the disk xvda .* took longer than 11 s"):
        restore(image_with(disks=[disk_of(disk, script=name)]), hotplug=HOTPLUG_TIMEOUT)
    assert HUNG.exists()


@pytest.mark.slow
def test_an_abort_while_a_script_hangs(
    image_with: Callable[..., Path], disk: Path, script: Callable[[str, str], str]
) -> None:
    name = script("block-lab-hangs", HANGS)
    with pytest.raises(Aborted):
        restore(image_with(disks=[disk_of(disk, script=name)]), lambda ao: ao.abort())


def test_the_child_is_killed_while_a_script_hangs(
    image_with: Callable[..., Path], disk: Path, script: Callable[[str, str], str]
) -> None:
    lasting = set(children()) - {loop().spare.pid}

    def kill(_ao: Ao[Any]) -> None:
        # The helper has ended: the stream has.
        (child,) = set(children()) - lasting
        os.kill(child, signal.SIGKILL)

    name = script("block-lab-hangs", HANGS)
    with pytest.raises(TargetError, match="killed by SIGKILL"):
        restore(image_with(disks=[disk_of(disk, script=name)]), kill)


@pytest.mark.slow
def test_a_card_s_script_that_hangs(
    image_with: Callable[..., Path], script: Callable[[str, str], str]
) -> None:
    nic = {"bridge": "xenbr0", "script": script("vif-lab-hangs", CARD_HANGS)}
    with pytest.raises(TimedOut, match="attaching the network card 0 took longer than 11 s"):
        restore(image_with(nics=[nic]), hotplug=HOTPLUG_TIMEOUT)
    assert HUNG.exists()


def test_an_abort_while_a_card_s_script_hangs(
    image_with: Callable[..., Path], disk: Path, script: Callable[[str, str], str]
) -> None:
    nic = {"bridge": "xenbr0", "script": script("vif-lab-hangs", CARD_HANGS)}
    image = image_with(disks=[disk_of(disk, script="block")], nics=[nic])
    with pytest.raises(Aborted):
        restore(image, lambda ao: ao.abort())


@pytest.mark.slow
def test_a_card_s_script_that_fails(
    image_with: Callable[..., Path], script: Callable[[str, str], str]
) -> None:
    fails = FAILS.replace("remove", "offline")
    nic = {"bridge": "xenbr0", "script": script("vif-lab-fails", fails)}
    with pytest.raises(TargetError, match=r"could not attach its network card 0.*no luck today"):
        restore(image_with(nics=[nic]))


# Surely none of these comes when all is there: the child's answers alone take more callbacks.
IN_TIME = range(9)


@pytest.mark.parametrize("after", spread(range(0, 60, 4), {4}))
def test_aborted_while_they_are_attached(
    image_with: Callable[..., Path], disk: Path, unchanged_host: HostState, after: int
) -> None:
    image = image_with(disks=[disk_of(disk, script="block")], nics=[{"bridge": "xenbr0"}])
    ao = aborted_while_finishing(image, after)
    assert was_undone(ao, unchanged_host) or after not in IN_TIME


def test_a_card_that_fails_after_its_disk(
    image_with: Callable[..., Path], disk: Path, script: Callable[[str, str], str]
) -> None:
    fails = FAILS.replace("remove", "offline")
    nic = {"bridge": "xenbr0", "script": script("vif-lab-fails", fails)}
    with pytest.raises(TargetError, match=r"could not attach its network card 0.*no luck today"):
        restore(image_with(disks=[disk_of(disk, script="block")], nics=[nic]))


NOT_HERE: dict[str, tuple[dict[str, Any], str]] = {
    "file": (
        {"disks": [disk_of(Path("/nowhere/disk"))]},
        r"disk xvda \(/nowhere/disk\): No such file",
    ),
    "bridge": (
        {"nics": [{"bridge": "nobr0"}]},
        "network card 0 .* bridge nobr0, which does not exist here",
    ),
    "script outside": (
        {"disks": [disk_of(Path("/dev/null"), script="../../../bin/sh")]},
        "script ../../../bin/sh of .* is not in /etc/xen/scripts",
    ),
    "script": (
        {"nics": [{"bridge": "xenbr0", "script": "vif-none"}]},
        "script vif-none .* is not here",
    ),
    "9pfs": ({"p9s": [{}]}, "it has 9pfs shares"),
    "PCI": ({"pcidevs": [{"domain": 0, "bus": 3}]}, "it has PCI devices passed through"),
}


@pytest.mark.parametrize("what", spread(NOT_HERE, {"file", "script outside"}))
def test_what_is_known_beforehand(image_with: Callable[..., Path], what: str) -> None:
    lists, message = NOT_HERE[what]
    with pytest.raises(TargetError, match=f"can't be restored here: .*{message}"):
        restore(image_with(**lists))


def test_a_disk_that_is_mounted(image_with: Callable[..., Path], disk: Path) -> None:
    subprocess.run(["mke2fs", "-q", "-t", "ext4", disk], check=True)
    where = disk.with_name("mounted")
    where.mkdir()
    subprocess.run(["mount", "-o", "loop", disk, where], check=True)
    try:
        with pytest.raises(TargetError, match=r"disk xvda .* is in use here"):
            restore(image_with(disks=[disk_of(disk, script="block")]))
    finally:
        subprocess.run(["umount", where], check=True)
        # The kernel takes the loop device off by and by.
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if str(disk) not in subprocess.check_output(["losetup", "-a"], text=True):
                    break
            time.sleep(0.1)
