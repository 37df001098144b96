"""A device model that does not come up: one message, within the deadline, and nothing is left."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from libxlsr.errors import Aborted, LibxlsrError, TargetError, TimedOut
from libxlsr.events import run
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.timeouts import Timeouts
from libxlsr.testing.fake_xen import device_model

from .points import spread
from .restoring import loop, restore_file

pytestmark = pytest.mark.usefixtures("unchanged_host")

FAKE = Path(device_model.__file__)
LOG = Path("/var/log/xen/qemu-dm-ticker.log")


def faking(way: str) -> RestoreOptions:
    extra = json.dumps(["-way", way])
    return RestoreOptions(overrides=[("b_info.device_model", str(FAKE)), ("b_info.extra", extra)])


FAILS = {
    "exits": "the device model exited with 3",
    "is-killed": "the device model was killed by SIGKILL",
    "hangs-up": "the device model exited with 0",
    "exits-while-it-reads": "the device model exited with 5",
    "hangs-up-while-it-reads": "the connection to the device model broke: it hung up",
    "rubbish": "something that is not QMP",
    "floods": "more than 1048576 bytes at once",
    "wrong-state": "state is internal-error",
    "refuses-to-go-on": "the device model says: I won't",
    "dies-before-it-goes-on": "the device model exited with 4",
}


@pytest.mark.parametrize(
    "way",
    spread(FAILS, {"exits", "hangs-up-while-it-reads", "rubbish", "dies-before-it-goes-on"}),
)
def test_it_fails(hvm_image: Path, way: str) -> None:
    with pytest.raises(TargetError, match=FAILS[way]) as caught:
        restore_file(hvm_image, faking(way))
    assert caught.value.last_log == "no display"
    assert str(LOG) in str(caught.value)
    assert LOG.read_text() == "no display\n"


@pytest.mark.parametrize(
    "way", spread(("never-listens", "never-greets", "never-ready"), {"never-ready"})
)
def test_it_never_answers(hvm_image: Path, way: str) -> None:
    with pytest.raises(TimedOut, match="did not get ready within 2 s") as caught:
        restore_file(hvm_image, faking(way), timeouts=Timeouts(device_model=2.0))
    assert str(LOG) in str(caught.value)


@pytest.mark.parametrize("way", spread(("never-listens", "never-ready"), {"never-ready"}))
def test_aborted_while_it_starts(hvm_image: Path, way: str) -> None:
    ctx = loop().ctx
    fd = os.open(hvm_image, os.O_RDONLY)
    try:
        ao, _target = loop().start(fd, dataclasses.replace(faking(way), to_eof=True))
        run(ctx, lambda: ao.done or _has_spoken())
        ao.abort()
        loop().run(ao)
    finally:
        os.close(fd)
    with pytest.raises(Aborted):
        ao.result()


def _has_spoken() -> bool:
    return LOG.exists() and LOG.read_text() == "no display\n"


@pytest.fixture(autouse=True)
def no_log() -> None:
    LOG.unlink(missing_ok=True)


@pytest.mark.parametrize(
    "program", spread(("/no/such/program", "qemu-system-i386", "/etc/passwd"), {"/etc/passwd"})
)
def test_it_is_no_program(hvm_image: Path, program: str) -> None:
    with pytest.raises(TargetError, match="is not a program here"):
        restore_file(hvm_image, RestoreOptions(overrides=[("b_info.device_model", program)]))


def test_it_can_not_be_executed(hvm_image: Path, tmp_path: Path) -> None:
    program = tmp_path / "model"
    program.write_bytes(b"\x7fELF but no more")
    program.chmod(0o700)
    with pytest.raises(TargetError, match="can't be started: execve failed: Exec format error"):
        restore_file(hvm_image, RestoreOptions(overrides=[("b_info.device_model", str(program))]))


def test_ten_logs_are_kept(hvm_image: Path) -> None:
    for _ in range(2):  # the second moves that of the first
        with pytest.raises(TargetError):
            restore_file(hvm_image, faking("exits"))
    assert LOG.with_name(f"{LOG.name}.1").read_text() == "no display\n"


UNSUPPORTED: dict[str, tuple[str, str]] = {
    "b_info.device_model_version": ("qemu_xen_traditional", "no Xen runs today"),
    "b_info.device_model_stubdomain": ("True", "stub domain"),
    "b_info.dm_restrict": ("True", "dm_restrict"),
    "b_info.device_model_user": ("nobody", "as the user nobody"),
    "c_info.ssid_label": ("system_u:system_r:domU_t", "XSM label"),
}


@pytest.mark.parametrize("place", spread(UNSUPPORTED, {"b_info.device_model_stubdomain"}))
def test_what_can_not_be_restored(hvm_image: Path, place: str) -> None:
    value, says = UNSUPPORTED[place]
    with pytest.raises(LibxlsrError, match=says):
        restore_file(hvm_image, RestoreOptions(overrides=[(place, json.dumps(value))]))
