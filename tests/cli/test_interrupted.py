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

import libxlsr
from libxlsr.testing.builder import StreamBuilder

PATIENCE = 120.0


@pytest.fixture
def hangup_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As of nohup, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


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


def start(
    command: list[str], begun: tuple[int, int], *, start_new_session: bool = False
) -> subprocess.Popen[bytes]:
    """Start a command; it has read what there is of the image."""
    process = subprocess.Popen(
        [sys.executable, "-m", "libxlsr", *command],
        stdin=begun[0],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=start_new_session,
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


def run_prepared(
    preparation: str, begun: tuple[int, int], *command: str, in_its_own_group: bool = False
) -> tuple[int, str, str]:
    """Run a command in a process that does ``preparation`` first; its exit code, what it said."""
    code = (
        "import os, signal, sys\n"
        "from libxlsr.cli import main\n"
        "from libxlsr.cli.program import program\n"
        f"{preparation}\n"
        "sys.exit(program())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, *command],
        stdin=begun[0],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=in_its_own_group,
        text=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    return process.returncode, out, err


def aborted_by(name: str) -> tuple[int, str, str]:
    """What `run_prepared` returns then."""
    return 4, "", f"libxlsr: error: aborted by {name}\n"


BEFORE_THE_COMMAND = """
parse = main.parse
def prepared_parse(arguments):
    prepare()
    return parse(arguments)
main.parse = prepared_parse
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="looks for read() by its number")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.usefixtures("not_ignored")
def test_a_signal_just_before_the_call_that_waits(name: str, begun: tuple[int, int]) -> None:
    """Which it does not end. Neither does one that another thread gets, and that has no race."""
    preparation = f"""
import threading, time
def send():
    path = f"/proc/self/task/{{os.getpid()}}/syscall"
    while not open(path).read().startswith("0 0x0 "):  # read(0, ...)
        time.sleep(0.01)
    signal.pthread_kill(threading.get_ident(), signal.{name})
threading.Thread(target=send, daemon=True).start()
"""
    assert run_prepared(preparation, begun, "verify", "-") == aborted_by(name)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.usefixtures("not_ignored")
def test_a_signal_in_a_destructor(name: str, begun: tuple[int, int]) -> None:
    """Python says there that it ignores what the handler raised, and goes on."""
    preparation = f"""
class Destroyed:
    def __del__(self):
        signal.raise_signal(signal.{name})
prepare = Destroyed
{BEFORE_THE_COMMAND}
"""
    assert run_prepared(preparation, begun, "verify", "-") == aborted_by(name)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.usefixtures("not_ignored")
def test_a_signal_while_a_namedtuple_is_made(name: str, begun: tuple[int, int]) -> None:
    """Python would end by SIGINT for any KeyboardInterrupt that was raised there."""
    preparation = f"""
def prepare():
    exec("signal.raise_signal(signal.{name})")
{BEFORE_THE_COMMAND}
"""
    assert run_prepared(preparation, begun, "verify", "-") == aborted_by(name)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("where", ["child", "parent"])
@pytest.mark.usefixtures("not_ignored")
def test_a_signal_while_processes_are_made(where: str, name: str, begun: tuple[int, int]) -> None:
    preparation = (
        f"os.register_at_fork(after_in_{where}=lambda: os.killpg(os.getpgrp(), signal.{name}))"
    )
    command = ["verify", "-j", "2", "-", "/dev/null"]
    assert run_prepared(preparation, begun, *command, in_its_own_group=True) == aborted_by(name)


@pytest.mark.parametrize(
    "command",
    [
        ["extract", "-", "output"],
        ["convert", "--compact", "-", "output"],
        ["restore", "--target", "image", "--output", "output", "-"],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("not_ignored")
def test_a_signal_as_the_output_begins(command: list[str], begun: tuple[int, int]) -> None:
    preparation = """
import tempfile
mkdtemp = tempfile.mkdtemp
def then_a_signal(**where):
    made = mkdtemp(**where)
    signal.raise_signal(signal.SIGTERM)
    return made
tempfile.mkdtemp = then_a_signal
"""
    assert run_prepared(preparation, begun, *command) == aborted_by("SIGTERM")
    assert os.listdir() == []


@pytest.mark.parametrize(
    "command",
    [
        ["convert", "--compact", "image", "output"],
        ["restore", "--target", "image", "--output", "output", "image"],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("not_ignored")
def test_a_lost_signal_that_the_tick_finds_as_the_output_begins(
    command: list[str], begun: tuple[int, int], tmp_path: Path
) -> None:
    (tmp_path / "image").write_bytes(StreamBuilder("pv", pages=2).build())
    preparation = """
import tempfile, time
class Destroyed:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
mkdtemp = tempfile.mkdtemp
def take_long(**where):
    made = mkdtemp(**where)
    time.sleep(1)
    return made
tempfile.mkdtemp = take_long
from libxlsr.cli import signals
run_abortable = signals.run_abortable
def lose_one_before(ctx, begin):
    Destroyed()
    return run_abortable(ctx, begin)
signals.run_abortable = lose_one_before
"""
    assert run_prepared(preparation, begun, *command) == aborted_by("SIGTERM")
    assert os.listdir() == ["image"]


@pytest.mark.parametrize("call", ["tempfile.mkdtemp", "os.link"])
@pytest.mark.usefixtures("not_ignored")
def test_a_signal_while_a_page_is_written(
    call: str, begun: tuple[int, int], tmp_path: Path
) -> None:
    """It comes too late: the page is there, and so it is said."""
    (tmp_path / "image").write_bytes(StreamBuilder("pv", pages=2).build())
    preparation = f"""
import tempfile
real = {call}
def then_a_signal(*arguments, **named):
    done = real(*arguments, **named)
    signal.raise_signal(signal.SIGTERM)
    return done
{call} = then_a_signal
"""
    done = run_prepared(preparation, begun, "inspect", "--html", "page", "image")
    assert done == (0, "image: described in page\n", "")
    assert sorted(os.listdir()) == ["image", "page"]


@pytest.mark.parametrize(
    "command",
    [
        ["verify", "-"],
        ["verify", "-j", "2", "-", "whole"],
        ["inspect", "-"],
        ["extract", "-", "output"],
        ["convert", "--compact", "-", "output"],
        ["restore", "--target", "image", "-"],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("hangup_ignored")
def test_a_signal_that_nohup_ignores(command: list[str], tmp_path: Path) -> None:
    image = StreamBuilder("pv", pages=64).build()
    (tmp_path / "whole").write_bytes(image)
    read_end, write_end = os.pipe()
    try:
        os.write(write_end, image[:40000])
        process = start(command, (read_end, write_end), start_new_session=True)
        with process:
            os.killpg(process.pid, signal.SIGHUP)
            with open(write_end, "wb", closefd=False) as rest:
                rest.write(image[40000:])
            os.close(write_end)
            write_end = -1
            _, err = process.communicate(timeout=PATIENCE)
    finally:
        os.close(read_end)
        if write_end >= 0:
            os.close(write_end)
    assert (process.returncode, err) == (0, b"")


def test_a_caller_that_ignores_sigchld(tmp_path: Path, begun: tuple[int, int]) -> None:
    """Children's exit codes would be lost."""
    (tmp_path / "image").write_bytes(StreamBuilder("pv", pages=2).build())
    preparation = "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    code, _, err = run_prepared(preparation, begun, "extract", "image", "output")
    assert (code, err) == (0, "")


def test_little_is_imported_before_signals_are_answered() -> None:
    code = """
import sys
before = set(sys.modules)
from libxlsr.cli import interrupts
print(*(set(sys.modules) - before))
"""
    # -S: without what installed packages import as Python starts
    command = [sys.executable, "-S", "-c", code]
    env = {"PYTHONPATH": str(Path(libxlsr.__file__).parents[1])}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    own = {"libxlsr", "libxlsr.cli", "libxlsr.cli.interrupts"}
    assert set(done.stdout.split()) <= own | {"__future__", "_signal"}


def test_the_alarm_of_the_caller_rings(begun: tuple[int, int]) -> None:
    """It outlives exec(), as in ``perl -e 'alarm 60; exec @ARGV' libxlsr ...``."""
    assert run_prepared("signal.alarm(1)", begun, "verify", "-") == (-signal.SIGALRM, "", "")


def test_the_program_that_a_command_becomes_gets_no_alarm(begun: tuple[int, int]) -> None:
    preparation = """
from libxlsr.cli.interrupts import stop_tick
def become_another(options):
    stop_tick()
    os.execv("/bin/sleep", ["sleep", "1"])
main.run = become_another
"""
    assert run_prepared(preparation, begun, "verify", "-") == (0, "", "")


def test_the_processes_of_verify_end_with_their_parent(begun: tuple[int, int]) -> None:
    process = start(["verify", "-j", "2", "-", "/dev/null"], begun)
    assert end(process, signal.SIGKILL) == (b"", b"")
