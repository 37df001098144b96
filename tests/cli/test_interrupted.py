"""Ctrl-C while a command waits for the rest of an image: one line, exit code 4, nothing left."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from libxlsr.cli import main as main_module
from libxlsr.cli.program import program
from libxlsr.testing.builder import StreamBuilder

PATIENCE = 120.0


@pytest.fixture
def not_ignored() -> Iterator[None]:
    """A shell's background job ignores Ctrl-C, and so would what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """A pipe with the first bytes of an image in it, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    read_end, write_end = os.pipe()
    os.write(write_end, StreamBuilder("pv", pages=64).build()[:40000])
    try:
        yield read_end, write_end
    finally:
        os.close(read_end)
        os.close(write_end)


def unread(pipe: int) -> int:
    """Bytes that wait in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize(
    "command",
    [
        ["verify", "-"],
        ["verify", "--digest", "-"],
        ["inspect", "-"],
        ["inspect", "--html", "page", "-"],
        ["diff", "-", "/dev/null"],
        ["extract", "-", "output"],
        ["convert", "--compact", "-", "output"],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("not_ignored")
def test_ctrl_c(command: list[str], begun: tuple[int, int]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "libxlsr", *command],
        stdin=begun[0],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while unread(begun[0]) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert (out, err) == (b"", b"libxlsr: error: aborted by SIGINT\n")
    assert process.returncode == 4
    assert os.listdir() == []


def test_ctrl_c_before_there_is_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_arguments: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "parse", interrupted)
    assert program() == 4
    assert capsys.readouterr().err == "libxlsr: error: aborted by SIGINT\n"
