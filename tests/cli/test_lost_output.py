"""Standard output that has nobody to read it, or no space: nothing half-made is left behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from libxlsr.testing.builder import StreamBuilder

PATIENCE = 120

MAKING = [
    ["restore", "image", "--target", "image", "--output", "output"],
    ["extract", "image", "output"],
    ["convert", "--compact", "image", "output"],
]
LOOKING = [["verify", "image"], ["inspect", "image"], ["diff", "image", "image"]]


@pytest.fixture(autouse=True)
def _image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image").write_bytes(StreamBuilder("hvm", pages=8).build())


@contextlib.contextmanager
def closed_pipe() -> Iterator[int]:
    """The end to write to, of a pipe whose other end is closed."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        yield write_end
    finally:
        os.close(write_end)


def run(
    command: list[str], stdout: int, stderr: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "libxlsr", *command],
        stdout=stdout,
        stderr=stderr,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("command", MAKING, ids=lambda command: str(command[0]))
def test_a_reader_that_goes_away_aborts_what_reports_to_it(command: list[str]) -> None:
    with closed_pipe() as stdout:
        done = run([*command, "--json"], stdout)
    assert done.returncode == 4
    assert done.stderr == "libxlsr: error: aborted, as whoever reads standard output has gone\n"
    assert os.listdir() == ["image"]


@pytest.mark.parametrize("command", MAKING, ids=lambda command: str(command[0]))
def test_a_full_disk_aborts_what_reports_to_it(command: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = run([*command, "--json"], full.fileno())
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.endswith("No space left on device")
    assert os.listdir() == ["image"]


@pytest.mark.parametrize("command", MAKING, ids=lambda command: str(command[0]))
def test_what_was_done_before_anything_is_printed_stays_done(command: list[str]) -> None:
    with closed_pipe() as stdout:
        done = run(command, stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(os.listdir()) == ["image", "output"]


@pytest.mark.parametrize("command", LOOKING, ids=lambda command: str(command[0]))
def test_a_verdict_that_nobody_read_is_no_good_one(command: list[str]) -> None:
    with closed_pipe() as stdout:
        done = run([*command, "--json"], stdout)
    assert done.returncode == 4
    assert done.stderr == ""


def test_an_error_is_said_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"no image")
    with closed_pipe() as stdout:
        done = run(["inspect", "image", "--json"], stdout)
    assert done.returncode == 1
    assert "libxlsr: error: " in done.stderr


@pytest.mark.parametrize(("image", "code"), [("missing", 3), ("wrong", 1)])
def test_the_exit_code_says_an_error_that_nothing_else_can(image: str, code: int) -> None:
    Path("wrong").write_bytes(b"no image")
    with open("/dev/full", "wb") as full:
        assert run(["inspect", image], subprocess.DEVNULL, full.fileno()).returncode == code


def test_a_good_image_that_nothing_can_be_said_of() -> None:
    with open("/dev/full", "wb") as full:
        assert run(["verify", "image"], full.fileno(), full.fileno()).returncode == 3


HELP = [["--help"], ["--version"], ["verify", "--help"]]


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help_that_finds_no_space(command: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = run(command, full.fileno())
    assert done.returncode == 3
    assert done.stderr == (
        "libxlsr: error: can't write to standard output: No space left on device\n"
    )


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help_that_nobody_reads(command: list[str]) -> None:
    with closed_pipe() as stdout:
        done = run(command, stdout)
    assert (done.returncode, done.stderr) == (4, "")
