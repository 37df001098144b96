"""The lab itself: the host is what it says, and guests boot, tick, save, restore and go away."""

from __future__ import annotations

import os
import select
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

from .check import CONCERNED, IN_DOM0
from .guests import (
    Guest,
    GuestDied,
    SavedGuest,
    booted_linux,
    tiny_config,
)
from .host import CommandFailed, Host
from .tiny_guest import COUNTER_ADDRESS, LOAD_ADDRESS, tiny_guest

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_xen_is_the_release_asked_for(xen_host: Host, pytestconfig: pytest.Config) -> None:
    lines = xen_host.run("xl info").stdout.splitlines()
    facts = {key.strip(): value.strip() for key, _, value in (ln.partition(":") for ln in lines)}
    assert f"{facts['xen_major']}.{facts['xen_minor']}" == pytestconfig.getoption("--xen")
    assert {"pv", "hvm", "hap"} <= set(facts["virt_caps"].split())


def test_a_failing_command_is_an_error(xen_host: Host) -> None:
    with pytest.raises(CommandFailed, match="no such thing") as caught:
        xen_host.run("echo no such thing >&2; exit 3")
    assert caught.value.result.returncode == 3


def test_files_go_in_and_come_out(xen_host: Host, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4097
    xen_host.put_bytes(data, "/run/xenlab-test/file")
    xen_host.get("/run/xenlab-test/file", tmp_path / "back")
    xen_host.run("rm -r /run/xenlab-test")
    assert (tmp_path / "back").read_bytes() == data


def test_dom0_reaches_nothing_outside(xen_host: Host) -> None:
    assert xen_host.run("nc -z -w 2 10.0.2.2 22", check=False).returncode != 0


# The saved guests below have booted, too.
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pv", "pvh"])
def test_linux_boots_ticks_and_goes_away(xen_host: Host, kind: str) -> None:
    guest = booted_linux(xen_host, f"boots-{kind}", kind)
    assert guest.domid() is not None
    first, second = guest.ticks()[:2]
    guest.destroy()
    assert (first.number, second.number) == (1, 2)
    assert first.digest == second.digest
    assert guest.domid() is None


@pytest.mark.parametrize("kind", ["pv", pytest.param("pvh", marks=pytest.mark.slow)])
def test_xl_restores_what_it_saved(
    xen_host: Host, kind: str, request: pytest.FixtureRequest
) -> None:
    saved: SavedGuest = request.getfixturevalue(f"saved_{kind}")
    assert xen_host.run(f"head -c 30 {saved.image}").stdout == "Xen saved domain, xl format\n \0"
    guest = Guest(xen_host, saved.name)
    guest.restore(saved.image)
    try:
        tick = guest.wait_for_tick(saved.last_tick.number + 2)
    finally:
        guest.destroy()
    assert tick.digest == saved.last_tick.digest


def test_a_guest_that_dies_is_not_waited_for(xen_host: Host) -> None:
    with pytest.raises(GuestDied, match="never-there died before tick 1"):
        Guest(xen_host, "never-there").wait_for_tick(1)


@pytest.mark.parametrize("kind", ["pvh", "hvm"])
def test_the_tiny_guest_counts(tiny_host: Host, kind: str) -> None:
    guest = Guest(tiny_host, f"tiny-{kind}")
    guest.create(tiny_config(guest.name, kind))
    try:
        guest.wait_for_tiny_count(3)
    finally:
        guest.destroy()


def test_the_tiny_guest_goes_on_after_a_restore(tiny_host: Host) -> None:
    guest = Guest(tiny_host, "tiny-saved")
    guest.create(tiny_config(guest.name, "hvm"))
    before = guest.wait_for_tiny_count(3)
    guest.save("/var/tmp/xenlab-images/tiny")
    guest.restore("/var/tmp/xenlab-images/tiny")
    try:
        assert guest.wait_for_tiny_count(1) > before
    finally:
        guest.destroy()
        tiny_host.run("rm /var/tmp/xenlab-images/tiny")


def test_what_concerns_a_file_is_there() -> None:
    for _, tests in CONCERNED:
        for test in tests:
            file, _, name = test.partition("::")
            assert f"def {name}" in (ROOT / IN_DOM0 / file).read_text()


def test_the_tiny_guest_is_tiny() -> None:
    elf = tiny_guest()
    assert len(elf) < 512
    entry = struct.unpack_from("<I", elf, 0x18)[0]
    assert LOAD_ADDRESS <= entry < LOAD_ADDRESS + len(elf) < COUNTER_ADDRESS


START_AND_HANG = """\
import sys
from tests.xenlab import host, snapshot

def hang(host, lock):
    host._start(lock, "-incoming", "defer")
    print(host.pid, flush=True)
    host.child.wait()

host.Host._load = hang
snapshot.boot(sys.argv[1])
"""


def test_qemu_dies_with_its_owner(pytestconfig: pytest.Config) -> None:
    xen = pytestconfig.getoption("--xen")
    command = [sys.executable, "-c", START_AND_HANG, xen]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        qemu = os.pidfd_open(int(owner.stdout.readline()))
        owner.kill()
    ended, _, _ = select.select([qemu], [], [], 30)
    os.close(qemu)
    assert ended
