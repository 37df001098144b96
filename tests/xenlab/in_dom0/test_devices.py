"""Guests with disks and network cards come back with them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .device_guests import DeviceGuest, saved_device_guest
from .guests import wait_until, xl
from .restoring import restore_file
from .state import HostState

GUESTS = [("pv", "device"), ("pvh", "loop"), ("pv", "qcow2"), ("pvh", "raw")]


@pytest.fixture(params=GUESTS, ids="-".join)
def guest(request: pytest.FixtureRequest) -> Iterator[DeviceGuest]:
    """A saved guest that does not run, its disk as it was when it was saved."""
    made = saved_device_guest(*request.param)
    made.reset()
    yield made
    made.destroy()


def test_the_guest_goes_on(guest: DeviceGuest) -> None:
    before, digest = guest.ticks()[-1]
    result = restore_file(guest.image)
    number, after = guest.wait_for_ticks(1)[0]
    assert (number <= before + 1, after) == (True, digest)
    guest.check_going_on()
    domid = str(result.guest.domid)
    (disk,) = xl("block-list", domid).splitlines()[1:]
    # Vdev, backend, handle, state: 4 is connected.
    assert disk.split()[:4] == ["51712", "0", domid, "4"]
    (card,) = xl("network-list", domid).splitlines()[1:]
    assert card.split()[4] == "4"
    assert card.split()[2].startswith("00:16:3e:")


def test_it_is_saved_and_xl_restores_it(guest: DeviceGuest, tmp_path: Path) -> None:
    restore_file(guest.image)
    guest.check_going_on()
    again = tmp_path / "again"
    xl("save", guest.name, str(again))
    xl("restore", str(again))
    guest.check_going_on()


def test_it_is_destroyed_without_a_trace(guest: DeviceGuest) -> None:
    before = HostState.now()
    restore_file(guest.image)
    guest.check_going_on()
    xl("destroy", guest.name)
    wait_until(lambda: HostState.now() == before, "the host to be as it was", seconds=30)


def test_its_disk_is_in_use(guest: DeviceGuest) -> None:
    restore_file(guest.image)
    changes = ["--name", "lab-other", "--config-override", "uuid=new"]
    done = subprocess.run(
        ["libxlsr", "restore", *changes, str(guest.image)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert f"is in use by domain {xl('domid', guest.name).strip()}" in done.stderr
