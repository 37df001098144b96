"""The example daemon, run as a program: restores, refusals, disconnects, SIGTERM, permissions."""

from __future__ import annotations

import configparser
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from libxlsr.testing.builder import StreamBuilder
from tests.paths import ROOT

from .running import HOME, Connection, RunningDaemon

IMAGE = StreamBuilder("hvm", pages=4).build()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    running = RunningDaemon(tmp_path)
    running.logged("listening")
    yield running
    running.stop()
    assert running.process.returncode == 0
    assert not running.path.exists()


@pytest.fixture
def half_image() -> Iterator[tuple[int, int]]:
    """A pipe with half an image in it, whose sender is still there; both its ends."""
    read_end, write_end = os.pipe()
    os.write(write_end, IMAGE[: len(IMAGE) // 2])
    yield read_end, write_end
    os.close(read_end)
    os.close(write_end)


def test_the_client_restores_the_example(daemon: RunningDaemon) -> None:
    image = ROOT / "examples" / "hvm-ticker-xen4.17.save.xz"
    ran = subprocess.run(
        [sys.executable, str(HOME / "client.py"), str(daemon.path), str(image), "ticker"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    assert {event["event"] for event in events[:-1]} == {"progress"}
    assert events[-1]["event"] == "restored"
    assert events[-1]["where"] == str(daemon.output / "ticker")
    assert (daemon.output / "ticker" / "image.json").is_file()


def test_a_damaged_image_fails_with_its_exit_code(daemon: RunningDaemon, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.write_bytes(IMAGE[:-4])
    ran = subprocess.run(
        [sys.executable, str(HOME / "client.py"), str(daemon.path), str(damaged), "g"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert json.loads(ran.stdout.splitlines()[-1])["event"] == "failed"
    assert list(daemon.output.iterdir()) == []


def test_many_clients_at_once(daemon: RunningDaemon, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(IMAGE)
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(daemon)) for _ in range(8)]
        for number, connection in enumerate(connections):
            file = stack.enter_context(open(path, "rb"))
            connection.ask_for(f"guest-{number}", file.fileno())
        last = [list(connection.events())[-1]["event"] for connection in connections]
    assert last == ["restored"] * 8


def test_disconnecting_cancels(daemon: RunningDaemon, half_image: tuple[int, int]) -> None:
    with Connection(daemon) as connection:
        connection.ask_for("gone", half_image[0])
        connection.wait_for_memory()
        assert len(list(daemon.output.iterdir())) == 1
    daemon.logged("gone: cancelled and undone")
    assert list(daemon.output.iterdir()) == []


def test_closing_one_half_is_no_disconnect(
    daemon: RunningDaemon, half_image: tuple[int, int]
) -> None:
    read_end, write_end = half_image
    with Connection(daemon) as connection:
        connection.ask_for("listener", read_end)
        connection.sock.shutdown(socket.SHUT_WR)
        connection.wait_for_memory()
        os.write(write_end, IMAGE[len(IMAGE) // 2 :])
        assert list(connection.events())[-1]["event"] == "restored"


@pytest.mark.parametrize("times", [1, 2])
def test_sigterm_undoes_what_runs(tmp_path: Path, half_image: tuple[int, int], times: int) -> None:
    daemon = RunningDaemon(tmp_path)
    daemon.logged("listening")
    with Connection(daemon) as connection:
        connection.ask_for("unlucky", half_image[0])
        connection.wait_for_memory()
        for _ in range(times - 1):
            daemon.process.send_signal(signal.SIGTERM)
        rest = daemon.stop()
    assert rest.splitlines()[-1] == "toolstack_daemon: stopped"
    assert "Traceback" not in rest
    assert "libxlsr.aio" not in rest
    assert daemon.process.returncode == 0
    assert list(daemon.output.iterdir()) == []


def test_more_clients_than_fds_can_be_had(tmp_path: Path) -> None:
    daemon = RunningDaemon(tmp_path, prefix=("prlimit", "--nofile=40"))
    daemon.logged("listening")
    path = tmp_path / "image"
    path.write_bytes(IMAGE)
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(Connection(daemon))
        daemon.logged("can't accept a client: [Errno 24] Too many open files")
    with Connection(daemon) as connection, path.open("rb") as file:
        connection.ask_for("guest", file.fileno())
        assert list(connection.events())[-1]["event"] == "restored"
    assert "Traceback" not in daemon.stop()
    assert daemon.process.returncode == 0


NO_REQUESTS: list[tuple[bytes, int]] = [
    (b'{"name": "a"}\n', 0),
    (b'{"name": "a"}\n', 2),
    (b'{"name": "a"}', 1),
    (b"\n", 1),
    (b"[" * 4000 + b"\n", 1),
    (b'{"name": "../a"}\n', 1),
    (b'{"name": ".a"}\n', 1),
    (b'{"name": ""}\n', 1),
    (b'{"name": 7}\n', 1),
    (b'{"name": "' + b"a" * 65 + b'"}\n', 1),
    (b"7\n", 1),
]
"""What a client may send, and with how many fds."""


def test_what_is_no_request_is_refused(daemon: RunningDaemon, half_image: tuple[int, int]) -> None:
    """One daemon is sent them all, and is there for the next client after each."""
    for request_line, nfds in NO_REQUESTS:
        with Connection(daemon) as connection:
            connection.ask(request_line, *[half_image[0]] * nfds)
            events = [event["event"] for event in connection.events()]
        assert events == ["refused"], (request_line, nfds)
        assert list(daemon.output.iterdir()) == [], (request_line, nfds)


def test_a_terminal_is_refused(daemon: RunningDaemon) -> None:
    master, slave = os.openpty()
    with Connection(daemon) as connection:
        connection.ask_for("g", slave)
        (event,) = connection.events()
    assert event["event"] == "refused"
    assert "a pipe or a socket" in event["error"]
    os.close(master)
    os.close(slave)


def test_a_client_that_leaves_without_a_word(daemon: RunningDaemon) -> None:
    Connection(daemon).__exit__()
    assert "refused" in daemon.logged("pid")


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_the_sockets_mode_is_as_asked_for(tmp_path: Path, mode: int) -> None:
    daemon = RunningDaemon(tmp_path, "--mode", f"{mode:o}")
    daemon.logged("listening")
    assert stat.S_IMODE(daemon.path.stat().st_mode) == mode
    daemon.stop()


def test_a_socket_that_was_left_over_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(tmp_path / "sock"))
    daemon = RunningDaemon(tmp_path)
    daemon.logged("listening")
    daemon.stop()


def test_a_second_daemon_is_refused(daemon: RunningDaemon, tmp_path: Path) -> None:
    second = RunningDaemon(tmp_path)
    _, said = second.process.communicate(timeout=60)
    assert second.process.returncode == 3
    assert said == f"toolstack_daemon: another daemon listens on {daemon.path}\n"


def test_a_socket_whose_queue_is_full_is_in_use(tmp_path: Path) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(tmp_path / "sock"))
        listener.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(tmp_path / "sock"))
        daemon = RunningDaemon(tmp_path)
        _, said = daemon.process.communicate(timeout=60)
    assert daemon.process.returncode == 3
    assert said == f"toolstack_daemon: another daemon listens on {daemon.path}\n"


@pytest.mark.parametrize("kind", ["file", "link to nothing"])
def test_what_is_no_socket_stays_where_it_is(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "sock"
    if kind == "file":
        path.write_text("precious")
    else:
        path.symlink_to("nothing")
    daemon = RunningDaemon(tmp_path)
    _, said = daemon.process.communicate(timeout=60)
    assert daemon.process.returncode == 3
    assert said == f"toolstack_daemon: {path} is there already, and no socket\n"
    assert path.is_symlink() or path.read_text() == "precious"


def test_the_units_name_each_other_and_options_that_exist() -> None:
    units = {}
    for kind in ("socket", "service"):
        units[kind] = configparser.ConfigParser(strict=False, interpolation=None)
        units[kind].optionxform = str  # type: ignore[assignment,method-assign]
        units[kind].read(HOME / f"toolstack-daemon.{kind}")
    command = units["service"]["Service"]["ExecStart"]
    assert units["socket"]["Socket"]["ListenStream"] in command
    assert units["service"]["Unit"]["Requires"] == "toolstack-daemon.socket"
    asked = subprocess.run(
        [sys.executable, str(HOME / "toolstack_daemon.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for word in command.split():
        if word.startswith("--"):
            assert word in asked.stdout
