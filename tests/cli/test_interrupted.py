"""Ctrl-C, or its kin, while a command waits for the rest of an image: one line, exit code 4, and
nothing is left."""

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
    """A shell's background job ignores Ctrl-C, one of nohup SIGHUP, and so would what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before)
    signal.signal(signal.SIGHUP, hangup)


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


def start(command: list[str], begun: tuple[int, int]) -> subprocess.Popen[bytes]:
    """Start a command; it has read what there is of the image."""
    process = subprocess.Popen(
        [sys.executable, "-m", "libxlsr", *command],
        stdin=begun[0],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + PATIENCE
    while unread(begun[0]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return process


def end(process: subprocess.Popen[bytes], number: int) -> tuple[bytes, bytes]:
    """Send a signal to the one process; what it and its children have said when all are gone."""
    with process:
        try:
            process.send_signal(number)
            return process.communicate(timeout=PATIENCE)
        finally:
            process.kill()


@pytest.mark.parametrize(
    "command",
    [
        ["verify", "-"],
        ["verify", "--digest", "-"],
        ["verify", "-j", "2", "-", "/dev/null"],
        ["inspect", "-"],
        ["inspect", "--html", "page", "-"],
        ["diff", "-", "/dev/null"],
        ["extract", "-", "output"],
        ["convert", "--compact", "-", "output"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.usefixtures("not_ignored")
def test_a_signal(command: list[str], name: str, begun: tuple[int, int]) -> None:
    process = start(command, begun)
    out, err = end(process, signal.Signals[name])
    assert (out, err) == (b"", f"libxlsr: error: aborted by {name}\n".encode())
    assert process.returncode == 4
    assert os.listdir() == []


def run_prepared(preparation: str, begun: tuple[int, int]) -> tuple[int, bytes]:
    """Run ``verify -`` in a process that does ``preparation`` first; its exit code and errors."""
    code = (
        f"import sys\n{preparation}\nfrom libxlsr.cli.program import program\nsys.exit(program())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "verify", "-"], stdin=begun[0], stderr=subprocess.PIPE
    ) as process:
        try:
            _, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    return process.returncode, err


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.usefixtures("not_ignored")
def test_a_signal_just_before_the_call_that_waits(name: str, begun: tuple[int, int]) -> None:
    """Which it does not end. Neither does one that another thread gets, and that has no race."""
    preparation = f"""
import os, signal, threading, time
def send():
    path = f"/proc/self/task/{{os.getpid()}}/syscall"
    while not open(path).read().startswith("0 0x0 "):  # read(0, ...)
        time.sleep(0.01)
    signal.pthread_kill(threading.get_ident(), signal.{name})
threading.Thread(target=send, daemon=True).start()
"""
    assert run_prepared(preparation, begun) == (4, f"libxlsr: error: aborted by {name}\n".encode())


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.usefixtures("not_ignored")
def test_a_signal_in_a_destructor(name: str, begun: tuple[int, int]) -> None:
    """Python says there that it ignores what the handler raised, and goes on."""
    preparation = f"""
import signal
from libxlsr.cli import main
class Destroyed:
    def __del__(self):
        signal.raise_signal(signal.{name})
parse = main.parse
def parse_and_destroy(arguments):
    Destroyed()
    return parse(arguments)
main.parse = parse_and_destroy
"""
    assert run_prepared(preparation, begun) == (4, f"libxlsr: error: aborted by {name}\n".encode())


def test_the_processes_of_verify_end_with_their_parent(begun: tuple[int, int]) -> None:
    process = start(["verify", "-j", "2", "-", "/dev/null"], begun)
    assert end(process, signal.SIGKILL) == (b"", b"")


def test_ctrl_c_before_there_is_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_arguments: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "parse", interrupted)
    assert program() == 4
    assert capsys.readouterr().err == "libxlsr: error: aborted by SIGINT\n"
