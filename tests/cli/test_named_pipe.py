"""An image out of a named pipe, whose open() waits for a writer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("command", MAKING + LOOKING, ids=lambda command: str(command[0]))
def test_the_writer_may_come_later(command: list[str], pipe: Path) -> None:
    Path("image").write_bytes(IMAGE)
    with subprocess.Popen([sys.executable, "-m", "libxlsr", *command]) as process:
        try:
            pipe.write_bytes(IMAGE)  # its open() waits for the command's
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
