"""The example daemon on a Xen host: restores, cancels and stops, and leaves what it found."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ...examples.toolstack_daemon.running import Connection, RunningDaemon
from .dom0 import domid_of, xenctrl
from .guests import Guest, saved_guest
from .state import HostState
from .waiting import wait_until

# A daemon lets as many restores at once have helpers as it has processors (HelperLimit), and this
# process has one (dom0.py).
ON_BOTH_PROCESSORS = ("taskset", "--cpu-list", "0,1")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    running = RunningDaemon(tmp_path, "--target", "xen", prefix=ON_BOTH_PROCESSORS)
    running.logged("listening")
    # It answers when its spare helper has been started, and its fds can be counted then.
    with Connection(running) as connection:
        connection.ask(b"{}\n")
        assert [event["event"] for event in connection.events()] == ["refused"]
    yield running
    rest = running.stop()
    assert "Traceback" not in rest
    assert running.process.returncode == 0


@contextmanager
def half_of(image: Path) -> Iterator[int]:
    """A pipe that gives the first half of the image, and then nothing more."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    half = str(image.stat().st_size // 2)
    with subprocess.Popen(["head", "-c", half, str(image)], stdout=write_end) as sender:
        try:
            yield read_end
        finally:
            os.close(read_end)
            os.close(write_end)
            sender.kill()


def held(daemon: RunningDaemon) -> tuple[int, int]:
    """How many fds the daemon has open, and how many children it has."""
    proc = Path(f"/proc/{daemon.process.pid}")
    children = (proc / "task" / str(daemon.process.pid) / "children").read_text()
    return len(list((proc / "fd").iterdir())), len(children.split())


def domids() -> set[int]:
    return {info.domid for info in xenctrl().domains()}


def ask_for_half(connection: Connection, guest: Guest, fd: int) -> None:
    """Have the daemon begin with the guest; its domain is there afterwards, and half of it."""
    before = domids()
    connection.ask_for(guest.name, fd)
    connection.wait_for_memory()
    wait_until(lambda: bool(domids() - before), "the new domain")


@pytest.mark.parametrize("guest", ["pv"], indirect=True)
def test_it_restores_one_while_another_is_cancelled(daemon: RunningDaemon, guest: Guest) -> None:
    """The one that is cancelled is of the other kind: no two domains have the same name."""
    other = saved_guest("pvh")
    other.destroy()
    idle, before = held(daemon), HostState.now()
    with half_of(other.image) as half, Connection(daemon) as leaving:
        ask_for_half(leaving, other, half)
        _, digest = guest.ticks()[-1]
        with Connection(daemon) as staying, open(guest.image, "rb") as image:
            staying.ask_for(guest.name, image.fileno())
            events = list(staying.events())
        progress, last = events[:-1], events[-1]
        assert {event["event"] for event in progress} == {"progress"}
        assert {event["phase"] for event in progress} >= {"preparing", "memory", "finishing"}
        positions = [event["position"] for event in progress]
        assert positions == sorted(positions)
        assert {event["total"] for event in progress} == {guest.image.stat().st_size}
        assert last["event"] == "restored"
        assert domid_of(guest.name) == last["domid"]
        assert {after for _, after in guest.wait_for_ticks(1)} == {digest}
    daemon.logged(f"{other.name}: cancelled and undone")
    assert domids() - before.domains == {last["domid"]}
    guest.destroy()
    assert HostState.now() == before
    assert held(daemon) == idle


@pytest.mark.usefixtures("unchanged_host")
def test_sigterm_undoes_a_domain_half_way(tmp_path: Path) -> None:
    linux = saved_guest("pv")
    daemon = RunningDaemon(tmp_path, "--target", "xen", prefix=ON_BOTH_PROCESSORS)
    daemon.logged("listening")
    with half_of(linux.image) as half, Connection(daemon) as connection:
        ask_for_half(connection, linux, half)
        rest = daemon.stop()
    assert "stopped" in rest
    assert "Traceback" not in rest
    assert daemon.process.returncode == 0
