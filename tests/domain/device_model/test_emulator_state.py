"""The device model's records are acted on for the one device model there is, or refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from libxlsr.domain.device_model.emulator_state import StateFile, check_context, check_keys
from libxlsr.domain.device_model.log_file import last_line, open_log
from libxlsr.errors import LibxlsrError, StreamError
from libxlsr.events import Context
from libxlsr.formats.libxl import EmulatorContext, EmulatorXenstoreData
from libxlsr.testing.stepping import run_until

STATE = b"QEVM\0\0\0\3" + bytes(100)


@pytest.mark.parametrize("emulator_id", [0, 2])
def test_qemu_s_own(emulator_id: int) -> None:
    check_context(EmulatorContext(emulator_id, 0, STATE))
    check_keys(EmulatorXenstoreData(emulator_id, 0, (("physmap/a", "b"),)))


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (EmulatorContext(1, 0, STATE), "qemu-traditional"),
        (EmulatorContext(1, 0, b"QemuDeviceModelRecord"), "qemu-traditional"),
        (EmulatorContext(0, 0, b"QemuDeviceModelRecord"), "unknown"),
        (EmulatorContext(2, 0, b"QemuDeviceModelRecord"), "begins with 51 65 6d 75"),
        (EmulatorContext(2, 0, b""), "begins with nothing"),
        (EmulatorContext(2, 1, STATE), "index 1"),
    ],
)
def test_another_s_context(record: EmulatorContext, says: str) -> None:
    with pytest.raises(StreamError, match=says):
        check_context(record)


@pytest.mark.parametrize(("emulator_id", "index"), [(1, 0), (2, 1)])
def test_another_s_keys(emulator_id: int, index: int) -> None:
    with pytest.raises(StreamError):
        check_keys(EmulatorXenstoreData(emulator_id, index))


class Written:
    def __init__(self) -> None:
        self.errors: list[LibxlsrError | None] = []

    def __call__(self, error: LibxlsrError | None) -> None:
        self.errors.append(error)


def test_the_state_is_in_a_file_of_its_own(ctx: Context, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("keep me")
    (tmp_path / "qemu-resume.7").symlink_to(elsewhere)
    state, done = StateFile(ctx, 7, tmp_path), Written()
    state.write(STATE * 20_000, done)
    run_until(ctx, lambda: bool(done.errors))
    assert done.errors == [None]
    assert (state.path.read_bytes(), state.path.stat().st_mode & 0o777) == (STATE * 20_000, 0o600)
    assert not state.path.is_symlink()
    fd = state.open()
    state.remove()
    assert os.read(fd, 4) == b"QEVM"
    os.close(fd)
    state.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
    assert elsewhere.read_text() == "keep me"


def test_stopped_while_it_is_written(ctx: Context, tmp_path: Path) -> None:
    state, done = StateFile(ctx, 7, tmp_path), Written()
    state.write(STATE, done)
    state.stop()
    state.remove()
    assert (ctx.registered(), list(tmp_path.iterdir()), done.errors) == ([], [], [])


def test_logs_are_rotated(tmp_path: Path) -> None:
    for number in range(12):
        path, fd = open_log("qemu-dm-guest", tmp_path)
        os.write(fd, b"%d\n" % number)
        os.close(fd)
    assert path.read_text() == "11\n"
    assert (tmp_path / "qemu-dm-guest.log.10").read_text() == "1\n"
    assert len(list(tmp_path.iterdir())) == 11


@pytest.mark.parametrize(
    ("content", "line"),
    [(b"", None), (b"\n \n", None), (b"a\n b \n\n", "b"), (b"x" * 5000, "x" * 4096)],
)
def test_the_last_words(tmp_path: Path, content: bytes, line: str | None) -> None:
    log = tmp_path / "log"
    log.write_bytes(content)
    assert last_line(log) == line
    assert last_line(tmp_path / "none") is None
