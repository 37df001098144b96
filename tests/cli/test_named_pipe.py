"""An image out of a named pipe, whose open() waits for a writer."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from libxlsr.cli.main import main
from libxlsr.testing.builder import StreamBuilder

PATIENCE = 120.0
IMAGE = StreamBuilder("hvm", pages=8).build()

MAKING = [
    ["restore", "pipe", "--target", "image", "--output", "output"],
    ["extract", "pipe", "output"],
    ["convert", "--compact", "pipe", "output"],
]
LOOKING = [["verify", "pipe"], ["inspect", "pipe"], ["diff", "pipe", "image"]]


@pytest.fixture(autouse=True)
def pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    return tmp_path / "pipe"


@pytest.mark.parametrize("command", MAKING, ids=lambda command: str(command[0]))
def test_a_deadline_ends_the_wait_for_a_writer(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--deadline", "0.1"]) == 4
    assert capsys.readouterr().err == "libxlsr: error: not done within 0.1 s\n"
    assert os.listdir() == ["pipe"]


def open_once_it_is_read(pipe: Path) -> BinaryIO:
    """The pipe to write into, when somebody has it open to read. Until then it has no writer."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fd = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            os.set_blocking(fd, True)
            return open(fd, "wb")


@pytest.mark.parametrize("command", MAKING + LOOKING, ids=lambda command: str(command[0]))
def test_the_writer_may_come_later(command: list[str], pipe: Path) -> None:
    Path("image").write_bytes(IMAGE)
    with subprocess.Popen([sys.executable, "-m", "libxlsr", *command]) as process:
        try:
            with open_once_it_is_read(pipe) as writing:
                writing.write(IMAGE)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
