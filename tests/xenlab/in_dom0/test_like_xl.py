"""A domain that libxlsr restored is like one that xl restored, to xenstore and to xl."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from libxlsr.restoring.options import RestoreOptions

from .dom0 import domid_of, find_domid
from .guests import IMAGES, Guest, xl
from .points import every_run_with
from .restoring import restore_file
from .tiny_guests import TinyGuest
from .twins import look_at
from .waiting import wait_until


def test_xenstore_and_xl_list_agree_with_xl_s_own(guest: Guest) -> None:
    xl("restore", "-p", str(guest.image))
    of_xl = look_at(guest)
    guest.destroy()
    restore_file(guest.image, RestoreOptions(paused=True))
    ours = look_at(guest)

    assert ours.listed == of_xl.listed
    assert ours.nodes["/local/domain/N/name"].startswith(f'"{guest.name}"')
    assert of_xl.unlisted_differences(ours) == {}


def test_a_driver_domain_has_xl_s_nodes(tiny: TinyGuest, tmp_path: Path) -> None:
    config = tmp_path / "driver.cfg"
    config.write_text(IMAGES.joinpath("tiny-pvh.cfg").read_text() + "driver_domain=1\n")
    xl("restore", str(config), str(tiny.image))
    of_xl = look_at(tiny)
    tiny.destroy()
    restore_file(tiny.image, RestoreOptions(overrides=[("c_info.driver_domain", '"True"')]))
    ours = look_at(tiny)

    assert "/local/domain/N/libxl" in of_xl.nodes
    assert ours.nodes["/local/domain/N/libxl"] == of_xl.nodes["/local/domain/N/libxl"]
    assert ours.nodes["/local/domain/N/device-model"] == of_xl.nodes["/local/domain/N/device-model"]


@pytest.fixture
def restored(guest: Guest) -> Guest:
    """A guest that libxlsr restored, and that has ticked since."""
    restore_file(guest.image)
    guest.wait_for_ticks(1)
    return guest


@every_run_with("pv")
def test_it_is_listed(restored: Guest) -> None:
    domid = str(domid_of(restored.name))
    assert xl("domid", restored.name).strip() == domid
    assert xl("vcpu-list", restored.name).splitlines()[1].split()[:3] == [
        restored.name,
        domid,
        "0",
    ]
    (listed,) = json.loads(xl("list", "-l", domid))
    assert listed["domid"] == int(domid)
    assert listed["config"]["c_info"]["name"] == restored.name


@every_run_with("pvh")
def test_its_console_is_heard(restored: Guest) -> None:
    leader, follower = pty.openpty()
    console = subprocess.Popen(
        ["xl", "console", restored.name], stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    try:
        restored.wait_for_a_tick_on(leader)
    finally:
        console.kill()
        console.wait()
        os.close(leader)


@every_run_with("pv")
def test_it_is_paused_and_renamed(restored: Guest) -> None:
    xl("pause", restored.name)
    xl("rename", restored.name, f"{restored.name}-renamed")
    xl("rename", f"{restored.name}-renamed", restored.name)
    xl("unpause", restored.name)
    restored.wait_for_ticks(1)


def test_it_is_saved_and_xl_restores_it(restored: Guest, tmp_path: Path) -> None:
    number, digest = restored.ticks()[-1]
    again = tmp_path / "again.save"
    xl("save", restored.name, str(again))
    assert find_domid(restored.name) is None
    xl("restore", str(again))
    later, after = restored.wait_for_ticks(1)[0]
    assert (later > number, after) == (True, digest)


@every_run_with("pv")
def test_it_shuts_down(restored: Guest) -> None:
    def state() -> str:
        return xl("list", restored.name).splitlines()[1].split()[4]

    xl("shutdown", restored.name)
    # Its power is off. No xl waits in the background for that, as one does for a domain of its own
    # (xl restore without -e), so that the domain stays until it is destroyed.
    wait_until(lambda: state()[3] == "s", "the guest to shut down")


@pytest.mark.usefixtures("unchanged_host")
def test_it_is_destroyed_without_a_trace(tiny: TinyGuest) -> None:
    restore_file(tiny.image)
    tiny.wait_until_it_goes_on()
    xl("destroy", tiny.name)
    wait_until(lambda: find_domid(tiny.name) is None, "the domain to go")


@pytest.mark.slow
@pytest.mark.parametrize("guest", ["pvh"], indirect=True)  # Xen 4.17 has no log-dirty for PV here
def test_it_migrates(restored: Guest) -> None:
    before, digest = xl("domid", restored.name), restored.ticks()[-1][1]
    xl("migrate", "-s", "", restored.name, "xl migrate-receive")
    assert xl("domid", restored.name) != before
    # Its console's log keeps the name that the domain had while it arrived.
    arrived = Guest(restored.kind, f"{restored.name}--incoming", restored.image)
    assert arrived.wait_for_ticks(1)[0][1] == digest
