"""An image that an older Xen saved comes back on the one of ``--xen``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .guests import Guest, SavedGuest, saved_linux
from .host import Host, running_host
from .snapshot import boot

OLDER = "4.17"

# Takes a second host.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def older_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """The lab with the older Xen that is up, or one of this run's own."""
    if request.config.getoption("--xen") == OLDER:
        pytest.skip(f"no release older than {OLDER} is in the lab")
    running = running_host(OLDER)
    host = running or boot(OLDER)
    yield host
    if running is None:
        host.shut_down()


@pytest.mark.parametrize("kind", ["pv", "pvh"])
def test_a_linux_guest_comes_back(
    older_host: Host, installed_host: Host, tmp_path: Path, kind: str
) -> None:
    saved: SavedGuest = saved_linux(older_host, kind)
    older_host.get(saved.image, tmp_path / "image")
    installed_host.put(tmp_path / "image", "/var/tmp/older.save")
    guest = Guest(installed_host, saved.name)
    installed_host.run(f"rm -f {guest.console_log}")
    try:
        installed_host.run("libxlsr restore /var/tmp/older.save")
        tick = guest.wait_for_tick(saved.last_tick.number + 2)
        assert tick.digest == saved.last_tick.digest
    finally:
        guest.destroy()
        installed_host.run("rm /var/tmp/older.save")
