"""What a hotplug script leaves that was broken off."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from libxlsr.domain.devices import hotplug

DOMID = 100000 + os.getpid()
"""Beyond any that Xen gives out (DOMID_FIRST_RESERVED), and of this process alone: other tests look
through the same processes."""
PROC = Path("/proc")
PATIENCE = 10.0
"""Seconds after which a wait is given up."""


@contextmanager
def sleeper(path: str, *, with_child: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the environment of a hotplug script, under way."""
    script = "sleep 1000 & echo; wait" if with_child else "echo; exec sleep 1000"
    with subprocess.Popen(
        ["/bin/sh", "-c", script],
        env={"PATH": os.environ["PATH"], "XENBUS_PATH": path},
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def test_a_script_and_what_it_started_are_killed() -> None:
    with sleeper(f"backend/vbd/{DOMID}/51712", with_child=True) as script:
        found = set(hotplug.script_processes(DOMID, PROC))
        deadline = time.monotonic() + PATIENCE
        while len(found) < 2:  # a process has no environment for a moment, while it becomes another
            assert time.monotonic() < deadline
            time.sleep(0.01)
            found = set(hotplug.script_processes(DOMID, PROC))
        assert script.pid in found
        assert len(found) == 2
        assert hotplug.kill_scripts(DOMID, PROC) >= 2
        assert script.wait() == -signal.SIGKILL
    assert set(hotplug.script_processes(DOMID, PROC)) == set()


def test_other_domains_scripts_live_on() -> None:
    with sleeper(f"backend/vif/{DOMID}1/0") as other, sleeper("backend/vbd/1/51712") as another:
        assert hotplug.kill_scripts(DOMID, PROC) == 0
        for process in (other, another):
            assert process.poll() is None


def test_the_loop_devices_over_a_file(tmp_path: Path) -> None:
    files = [tmp_path / "disk", tmp_path / "other"]
    for number, file in enumerate(files):
        file.touch()
        backing = tmp_path / f"sys/block/loop{number}/loop/backing_file"
        backing.parent.mkdir(parents=True)
        backing.write_text(f"{file}\n")
    (tmp_path / "sys/block/loop9").mkdir()
    link = tmp_path / "link"
    link.symlink_to(files[0])
    found = hotplug.loops_over([str(link)], tmp_path / "sys")
    assert found == {("/dev/loop0", str(files[0]))}
