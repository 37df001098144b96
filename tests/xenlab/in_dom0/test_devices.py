"""Guests with disks and network cards come back with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from libxlsr.errors import TargetError
from libxlsr.events import Context, run
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import Phase, Progress
from libxlsr.restoring.xen_target import XenTarget
from libxlsr.xen.xenstore import Xenstore

from . import dom0
from .device_guests import DeviceGuest, saved_device_guest
from .guests import xl
from .points import spread
from .restoring import restore_file
from .state import HostState
from .tiny_guests import TinyGuest
from .twins import look_at
from .waiting import wait_until

GUESTS = ["pvh-loop", "pv-qcow2", "pv-device", "pvh-raw", "hvm-raw"]


@pytest.fixture(params=spread(GUESTS, {"pvh-loop", "pv-qcow2"}))
def guest(request: pytest.FixtureRequest) -> Iterator[DeviceGuest]:
    """A saved guest that does not run, its disk as it was when it was saved."""
    made = saved_device_guest(*request.param.split("-"))
    made.reset()
    yield made
    made.destroy()


def test_it_goes_on_and_is_like_xl_s_own(guest: DeviceGuest) -> None:
    ticks = len(guest.ticks())
    xl("restore", str(guest.image))
    guest.check_going_on()
    first, digest = guest.ticks()[ticks]
    of_xl = look_at(guest)
    guest.reset()

    ticks = len(guest.ticks())
    result = restore_file(guest.image)
    guest.check_going_on()
    number, after = guest.ticks()[ticks]
    assert after == digest
    # Where xl's went on; one tick may have been in the console's ring, and gone with it.
    assert abs(number - first) <= 1
    ours = look_at(guest)
    assert ours.listed == of_xl.listed
    assert any("/backend/vif/N/0/state" in path for path in ours.nodes)
    assert of_xl.unlisted_differences(ours) == {}

    domid = str(result.guest.domid)
    (disk,) = xl("block-list", domid).splitlines()[1:]
    # Vdev, backend, handle, state: 4 is connected.
    assert disk.split()[:4] == ["51712", "0", domid, "4"]
    (card,) = xl("network-list", domid).splitlines()[1:]
    assert card.split()[4] == "4"


@pytest.mark.parametrize("guest", spread(GUESTS, {"pvh-loop"}), indirect=True)
def test_xl_saves_restores_and_destroys_it(guest: DeviceGuest, tmp_path: Path) -> None:
    before = HostState.now()
    restore_file(guest.image)
    guest.check_going_on()
    again = tmp_path / "again"
    xl("save", guest.name, str(again))
    wait_until(lambda: HostState.now() == before, "a saved guest to leave no trace", seconds=30)
    xl("restore", str(again))
    guest.check_going_on()


@pytest.mark.slow
@pytest.mark.parametrize("guest", ["pvh-loop"], indirect=True)
def test_it_is_destroyed_without_a_trace(guest: DeviceGuest) -> None:
    before = HostState.now()
    restore_file(guest.image)
    guest.check_going_on()
    xl("destroy", guest.name)
    wait_until(lambda: HostState.now() == before, "the host to be as it was", seconds=30)


@pytest.fixture
def image_with_disk(image_with: Callable[..., Path], tmp_path: Path) -> Path:
    """The tiny guest's, with a loop device over a file."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    attached = {"vdev": "xvda", "pdev_path": str(disk), "format": "raw", "script": "block"}
    return image_with(disks=[{**attached, "readwrite": 1}])


def test_its_disk_is_in_use(image_with_disk: Path, tiny: TinyGuest) -> None:
    before = HostState.now()
    result = restore_file(image_with_disk, RestoreOptions(paused=True))
    other = RestoreOptions(overrides=[("name", "lab-other"), ("uuid", "new")])
    with pytest.raises(TargetError, match=f"is in use by domain {result.guest.domid}"):
        restore_file(image_with_disk, other)
    tiny.destroy()
    wait_until(lambda: HostState.now() == before, "the host to be as it was", seconds=30)


def test_its_disk_is_taken_while_its_stream_is_read(image_with_disk: Path) -> None:
    before = HostState.now()
    taken: list[int] = []
    ctx = Context()

    def note(progress: Progress) -> None:
        if progress.phase is Phase.MEMORY and not taken:
            other = RestoreOptions(overrides=[("name", "lab-other"), ("uuid", "new")], paused=True)
            result = restore_file(image_with_disk, other)
            assert result.guest.domid is not None
            taken.append(result.guest.domid)

    with image_with_disk.open("rb") as image:
        ao = restore_ao(
            ctx,
            image.fileno(),
            RestoreOptions(to_eof=True),
            target=XenTarget(ctx),
            on_progress=note,
        )
        run(ctx, lambda: ao.done)
    (domid,) = taken
    try:
        with pytest.raises(TargetError, match=f"is in use by domain {domid}"):
            ao.result()
    finally:
        dom0.destroy(domid)
    wait_until(lambda: HostState.now() == before, "the host to be as it was", seconds=30)


def test_a_framebuffer_and_its_keyboard(pv_image: Path, image_with: Callable[..., Path]) -> None:
    """The guest has no driver for them: they are there, and go with the domain."""
    before = HostState.now()
    result = restore_file(image_with(pv_image, vfbs=[{"devid": 0}], vkbs=[{"devid": 0}]))
    domid = result.guest.domid
    assert domid is not None
    try:
        with Xenstore() as xenstore:
            backends = "/local/domain/0/backend"
            assert xenstore.read(f"{backends}/vfb/{domid}/0/vnc") == "1"
            assert xenstore.read(f"{backends}/vkbd/{domid}/0/frontend-id") == str(domid)
            assert xenstore.read(f"/local/domain/{domid}/image/device-model-pid")
    finally:
        dom0.destroy(domid)
    wait_until(lambda: HostState.now() == before, "the host to be as it was", seconds=30)
