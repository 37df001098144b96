"""``libxlsr restore`` as a person runs it: lines, exit codes, and what is left behind."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libxlsr.cli import restore_command
from libxlsr.cli.main import main
from libxlsr.cli.report import ProgressDisplay, Report
from libxlsr.formats.libxc import RecordType
from libxlsr.restoring.choose import Choice
from libxlsr.restoring.progress import Phase, Progress
from libxlsr.testing.builder import StreamBuilder, config_json
from tests.paths import EXAMPLE

STREAM = StreamBuilder("hvm", pages=8)
DATA = STREAM.build()
COMMAND = [sys.executable, "-m", "libxlsr", "restore"]
PATIENCE = 60


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def image(tmp_path: Path) -> str:
    (tmp_path / "web.save").write_bytes(DATA)
    return "web.save"


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own; never a traceback, and no line but libxlsr's own."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        **options,
    )
    assert "Traceback" not in done.stderr
    return done


def one_error(stderr: str) -> str:
    """The only line of ``stderr``, without its beginning."""
    (line,) = stderr.splitlines()
    assert line.startswith("libxlsr: error: ")
    return line[len("libxlsr: error: ") :]


def test_the_example() -> None:
    done = run(str(EXAMPLE), "--target", "image", "--output", "guest")
    assert (done.returncode, done.stderr) == (0, "")
    text = done.stdout
    assert "Restored offline into guest" in text
    assert re.search(r"^  type +hvm, saved by Xen 4\.17$", text, re.MULTILINE)
    assert re.search(r"^  pages +.*752 NOTAB", text, re.MULTILINE)
    assert "xl, xz, 11465204 bytes" in text
    with open("guest/memory", "rb") as memory:
        memory.seek(0x101000)
        assert int.from_bytes(memory.read(4), "little") == 19


def test_the_target_that_auto_chose_is_named(image: str) -> None:
    done = run(image, "--output", "guest")
    assert done.returncode == 0
    assert re.search(r"Restored offline into guest \(.+\)\.", done.stdout)


def test_the_output_is_named_after_the_image(image: str) -> None:
    assert main(["restore", image, "--target", "image"]) == 0
    assert sorted(os.listdir()) == ["web.guest", "web.save"]


def test_standard_input(image: str) -> None:
    with open(image, "rb") as file:
        done = run("-", "--target", "image", stdin=file)
    assert done.returncode == 0
    assert sorted(os.listdir()) == ["restored.guest", "web.save"]


def test_a_configuration_for_an_image_that_has_none() -> None:
    Path("web.save").write_bytes(StreamBuilder("hvm", pages=4, xl_header=False).build())
    Path("web.json").write_text(json.dumps(config_json("hvm", 4, name="web")))
    done = run("web.save", "--target", "image", "--config", "web.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^  name +web$", done.stdout, re.MULTILINE)


def test_what_follows_the_image_on_a_pipe_is_left_there() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(DATA + b"GO")
        ours.shutdown(socket.SHUT_WR)
        assert run("-", "--target", "image", stdin=theirs).returncode == 0
        assert theirs.recv(10) == b"GO"


def test_what_follows_the_image_in_a_file_is_refused() -> None:
    Path("web.save").write_bytes(DATA + b"GO")
    done = run("web.save", "--target", "image")
    assert done.returncode == 1
    assert f"at offset {len(DATA):#x}" in one_error(done.stderr)
    assert os.listdir() == ["web.save"]


def events(stdout: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.splitlines()]


def test_times_are_rounded_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(Phase.MEMORY, 1, 3, 0, 0, 1 / 3)
    ProgressDisplay(Report(json=True)).update(progress)
    (event,) = events(capsys.readouterr().out)
    assert (event["elapsed"], event["rate"], event["time_left"]) == (0.333333, 3, 0.666667)


def test_json(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restore", image, "--target", "image", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    *progress, restored = events(captured.out)
    assert restored["event"] == "restored"
    assert restored["guest"]["target"] == "image"
    assert restored["guest"]["pages"] == {"NOTAB": 8}
    assert restored["image"] == {"kind": "xl", "compression": None}
    assert restored["stream_bytes"] == len(DATA)
    assert {event["event"] for event in progress} == {"progress"}
    last = progress[-1]
    assert (last["position"], last["total"], last["time_left"]) == (len(DATA), len(DATA), 0)
    assert (last["phase"], last["frames"]) == ("finishing", 8)
    assert last["records"] == restored["libxl_records"] + sum(restored["guest"]["records"].values())
    assert last["rate"] > 0
    assert last["elapsed"] <= restored["seconds"]
    assert set(restored["phases"]) == {"opening", "preparing", "memory", "records", "finishing"}


def test_json_of_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    Path("web.save").write_bytes(DATA[:-4])
    assert main(["restore", "web.save", "--target", "image", "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.err == ""
    error = events(captured.out)[-1]
    assert error["event"] == "error"
    assert error["class"] == "StreamError"
    assert error["offset"] == len(DATA) - 4
    assert error["exit_code"] == 1


@pytest.mark.parametrize("data", [b"", b"hello", b"hello, world, no image", DATA[:-8], DATA[:70]])
def test_a_bad_image(data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    Path("web.save").write_bytes(data)
    assert main(["restore", "web.save", "--target", "image"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    one_error(captured.err)
    assert os.listdir() == ["web.save"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-file"], "can't open no-such-file: open failed: No such file or directory"),
        (["."], "Is a directory"),
        (["web.save", "--output", "web.save"], "exists already"),
        (["web.save", "--output", "no/such/parent"], "No such file or directory"),
        (["web.save", "--output", "x" * 256], "File name too long"),
    ],
)
def test_what_the_machine_can_not(
    image: str, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["restore", *arguments, "--target", "image"]) == 3
    assert words in one_error(capsys.readouterr().err)
    assert os.listdir() == ["web.save"]


def test_no_xen_here(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    if os.path.exists("/proc/xen/privcmd"):
        pytest.skip("this is a Xen host")
    assert main(["restore", image, "--target", "xen"]) == 3
    *_, line = capsys.readouterr().err.splitlines()  # Xen's libraries may log before it
    assert "Xen" in one_error(line)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--no-such-option", "x"],
        ["x", "--target", "moon"],
        ["x", "--deadline", "soon"],
        ["x", "--deadline", "-1"],
        ["x", "--timeout", "5"],
        ["x", "--timeout", "sender=5"],
        ["x", "--timeout", "silence=soon"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["restore", *arguments])
    assert caught.value.code == 2
    assert "usage: libxlsr" in capsys.readouterr().err


def test_a_pipe_is_no_place_for_a_guest(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restore", image, "--target", "image", "--output", "-"]) == 2
    assert "a guest is restored into a directory" in capsys.readouterr().err
    assert not Path("-").exists()


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["--version"], ["restore", "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "exit codes:" in text
    assert "--output DIR" in text


def test_standard_input_that_is_closed() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND, "-", "--target", "image"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert "standard input is closed" in one_error(done.stderr)


def test_a_closed_pipe_as_standard_input() -> None:
    done = run("-", "--target", "image", stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert "truncated or empty" in one_error(done.stderr)
    assert os.listdir() == []


def test_nobody_reads_the_output(image: str) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "wb") as closed:
        process = subprocess.run(
            [*COMMAND, image, "--target", "image"],
            stdout=closed,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
    assert process.stderr == b""
    assert sorted(os.listdir()) == ["web.guest", "web.save"]


@pytest.fixture
def waiting(not_ignored: None) -> Iterator[subprocess.Popen[bytes]]:
    """The command, with its helper, waiting for the rest of an image."""
    arguments = ["-", "--target", "image", "--json"]
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(DATA[:5000])
        process.stdin.flush()
        for line in process.stdout:
            if json.loads(line).get("phase") == "memory":
                break
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals(waiting: subprocess.Popen[bytes], signum: signal.Signals) -> None:
    helper = _helper_of(waiting.pid)
    waiting.send_signal(signum)
    assert waiting.stdout is not None
    assert waiting.stderr is not None
    *_, error = events(waiting.stdout.read().decode())
    assert waiting.wait(PATIENCE) == 4
    assert error["class"] == "Aborted"
    assert signum.name in error["message"]
    assert waiting.stderr.read() == b""
    assert os.listdir() == []
    assert not os.path.exists(f"/proc/{helper}")


def test_ctrl_c_before_the_restore_has_begun(
    image: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(target: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(restore_command, "choose", interrupted)
    assert main(["restore", image, "--target", "image"]) == 4
    assert "SIGINT" in one_error(capsys.readouterr().err)


def test_kill_9_on_the_helper(waiting: subprocess.Popen[bytes]) -> None:
    os.kill(_helper_of(waiting.pid), signal.SIGKILL)
    assert waiting.stdout is not None
    *_, error = events(waiting.stdout.read().decode())
    assert waiting.wait(PATIENCE) == 3
    assert "the helper was killed by SIGKILL" in error["message"]
    assert os.listdir() == []


def test_kill_9_on_the_command_takes_the_helper_along(waiting: subprocess.Popen[bytes]) -> None:
    pidfd = os.pidfd_open(_helper_of(waiting.pid))
    try:
        waiting.kill()
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert poll.poll(PATIENCE * 1000), "the helper outlives the command"
    finally:
        os.close(pidfd)


def _helper_of(pid: int) -> int:
    while True:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            pids = file.read().split()
        if pids:
            return int(pids[0])


@pytest.mark.parametrize(
    "options", [["--deadline", "0.2"], ["--timeout", "helper=none", "--timeout", "silence=0.2"]]
)
def test_a_deadline(options: list[str]) -> None:
    read_end, write_end = os.pipe()
    try:
        os.write(write_end, DATA[:200])
        done = run("-", "--target", "image", *options, stdin=read_end)
    finally:
        os.close(read_end)
        os.close(write_end)
    assert done.returncode == 4
    assert "0.2 s" in one_error(done.stderr)
    assert os.listdir() == []


def test_very_verbose(image: str) -> None:
    done = run(image, "--target", "image", "-vv")
    assert done.returncode == 0
    assert "DEBUG" in done.stderr


def test_a_failover_is_told() -> None:
    stream = StreamBuilder("hvm", pages=8, checkpoints=[[1], [2]])
    stream.truncate_after(stream.find(RecordType.CHECKPOINT, 1))
    Path("web.save").write_bytes(stream.build())
    done = run("web.save", "--target", "image")
    assert done.returncode == 0
    assert f"the stream broke off (at offset {stream.size:#x}" in done.stdout
    assert "the guest is as of its checkpoint 1" in done.stdout


def test_a_name_that_is_no_line_of_text() -> None:
    config = config_json("hvm", 8, name="evil\x1b[2J\nname")
    Path("web.save").write_bytes(StreamBuilder("hvm", pages=8, config=config).build())
    done = run("web.save", "--target", "image")
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-F"], "-F: libxlsr does not wait for the end of the domain"),
        (["-c", "--target", "image"], "-c: an offline restore has no console"),
    ],
)
def test_options_of_xl_that_make_no_sense(image: str, arguments: list[str], said: str) -> None:
    done = run(*arguments, image)
    assert done.returncode == 2
    assert one_error(done.stderr).startswith(said)
    assert not Path("web.guest").exists()


def test_no_monitor_is_what_happens_anyway(image: str) -> None:
    done = run("-e", "--target", "image", image)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--json", "web.save"], "a console is no JSON"), (["-"], "standard input can't be both")],
)
def test_a_console_that_can_not_be(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.setattr(restore_command, "choose", lambda _target: Choice("xen", "it is said so"))
    assert main(["restore", "-c", *arguments]) == 2
    told = capsys.readouterr()
    assert said in told.out + told.err
