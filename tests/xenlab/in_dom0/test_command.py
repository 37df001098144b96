"""``libxlsr restore`` as a person in dom0 runs it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from .dom0 import domid_of, find_domid, xenctrl
from .guests import Guest, xl
from .images import write_changed
from .points import every_run_with
from .tiny_guests import TinyGuest
from .waiting import wait_until

COMMAND = [sys.executable, "-m", "libxlsr", "restore"]


def libxlsr_restore(
    *arguments: str | Path, stdin: IO[bytes] | None = None
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], stdin=stdin, capture_output=True, check=False
    )
    assert b"Traceback" not in done.stderr
    return done


def restored_event(output: bytes) -> dict[str, Any]:
    """The object that --json prints last."""
    events: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines()]
    assert events[-1]["event"] == "restored"
    return events[-1]


@every_run_with("pv")
def test_it_restores(guest: Guest) -> None:
    ticks = len(guest.ticks())
    done = libxlsr_restore(guest.image)
    assert (done.returncode, done.stderr) == (0, b"")
    domid = domid_of(guest.name)
    assert f"Restored domain {domid} (this is a Xen host).".encode() in done.stdout
    guest.check_goes_on_after(ticks)


def test_paused_under_another_name_said_in_json(tiny: TinyGuest) -> None:
    name = f"{tiny.name}-other"
    try:
        done = libxlsr_restore(
            *("--paused", "--name", name, "--config-override", "uuid=new", "--json"), tiny.image
        )
        assert (done.returncode, done.stderr) == (0, b"")
        event = restored_event(done.stdout)
        domid = event["guest"]["domid"]
        assert event["guest"]["name"] == name
        assert domid_of(name) == domid
        info = xenctrl().domain_info(domid)
        assert info is not None
        assert info.paused
        xl("unpause", name)
    finally:
        TinyGuest(tiny.kind, name, tiny.image).destroy()


def test_from_a_pipe(tiny: TinyGuest) -> None:
    with subprocess.Popen(["cat", str(tiny.image)], stdout=subprocess.PIPE) as sender:
        done = libxlsr_restore("-", stdin=sender.stdout)
    assert (done.returncode, done.stderr) == (0, b"")
    tiny.wait_until_it_goes_on()


@every_run_with("pv")
def test_it_becomes_the_console(guest: Guest) -> None:
    leader, follower = pty.openpty()
    command = subprocess.Popen(
        [*COMMAND, "-c", str(guest.image)], stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    try:
        heard = guest.wait_for_a_tick_on(leader)
        assert Path(f"/proc/{command.pid}/comm").read_text().strip() == "xenconsole"
    finally:
        command.kill()
        command.wait()
        os.close(leader)
    assert b"Restored domain" in heard


@pytest.mark.usefixtures("unchanged_host")
def test_offline_when_asked(pv_image: Path, tmp_path: Path) -> None:
    done = libxlsr_restore("--target", "image", "--output", tmp_path / "guest", pv_image)
    assert done.returncode == 0
    assert (tmp_path / "guest").is_dir()


@pytest.mark.usefixtures("unchanged_host")
def test_a_bad_image_is_said_in_one_line(tiny_image: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.save"
    write_changed(tiny_image, cut, lambda image: image.upto(1_000_000))
    done = libxlsr_restore(cut)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"libxlsr: error: ")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.usefixtures("unchanged_host")
def test_a_signal_undoes_everything(tiny_image: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as command:
        assert command.stdin is not None
        with tiny_image.open("rb") as image:
            command.stdin.write(image.read(2_000_000))
        command.stdin.flush()
        wait_until(lambda: find_domid("lab-tiny-pvh") is not None, "the domain")
        command.terminate()
        assert command.stderr is not None
        errors = command.stderr.read()
        assert command.wait() == 4
    assert b"aborted by SIGTERM" in errors
    assert b"Traceback" not in errors
