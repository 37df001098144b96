"""``libxlsr verify`` as a person or a program uses it."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from pathlib import Path

import pytest

from libxlsr.cli.main import main
from libxlsr.formats.libxc import RecordType
from libxlsr.testing.builder import StreamBuilder


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good"
    path.write_bytes(StreamBuilder("pv", dirtied=[[1, 2]]).build())
    return str(path)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    stream = StreamBuilder("pv")
    stream.drop(RecordType.X86_TSC_INFO)
    path = tmp_path / "bad"
    path.write_bytes(stream.build())
    return str(path)


def test_a_good_image(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", good]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"{good}: good; structure checked, pages not read (--full reads them)",
        f"{good}: xl image of a guest of type pv; saved by Xen 4.17; libxc version 3; "
        "2 libxl and 14 libxc records; frames: 16 NOTAB; 2 sent again",
    ]
    assert err == ""


def test_full_and_digest_say_so(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--full", good]) == 0
    size = Path(good).stat().st_size
    assert f"all {size} bytes were read" in capsys.readouterr().out
    assert main(["verify", "--digest", good]) == 0
    assert f"{good}: digest libxlsr-1:" in capsys.readouterr().out


def test_a_digest_that_there_is_none_of_is_accounted_for(
    good: str, bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--digest", good]) == 0
    assert "no digest" not in capsys.readouterr().out
    assert main(["verify", "--digest", bad]) == 1
    assert f"{bad}: no digest: there are errors" in capsys.readouterr().out.splitlines()
    remus = StreamBuilder("pv", checkpoints=[[1], [2]])
    cut = tmp_path / "cut"
    cut.write_bytes(remus.build()[:-100])
    assert main(["verify", "--digest", str(cut)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{cut}: no digest: the image ends at a checkpoint" in lines


def test_an_image_that_is_cut_off_was_read_to_its_end(
    good: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(good).read_bytes()
    for size in (len(data) - 1, len(data) // 2, 60, 8):
        Path(good).write_bytes(data[:size])
        for more in ([], ["--full"], ["--digest"]):
            assert main(["verify", "--json", *more, good]) == 1
            finding, verified = map(json.loads, capsys.readouterr().out.splitlines())
            assert (finding["id"], finding["offset"]) == ("truncated", size)
            assert verified["bytes"] == size
    assert main(["verify", "--full", good]) == 1
    assert capsys.readouterr().out.endswith("bad, 1 error; 8 bytes were read\n")


@pytest.mark.parametrize("head", [b"", b"Xen ", b"LibxlFm", b"\xff" * 4, b"\xfd7zXZ", b"\0"])
def test_what_is_too_short_to_be_recognised(
    head: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "image"
    image.write_bytes(head)
    for command in ("verify", "inspect"):
        assert main([command, str(image)]) == 1
        said = capsys.readouterr()
        ends = f"ends {len(head)} bytes into its header: it is truncated or empty"
        assert ends in said.out + said.err
    assert main(["verify", str(image)]) == 1
    assert capsys.readouterr().out.endswith("; not looked into\n")


def test_what_can_not_be_read_is_named(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    bad_sector = "/proc/self/mem"  # whose first page nobody has
    for command in (
        ["verify", good],
        ["verify", "-j2", good],
        ["diff", good],
        ["diff", "--json", good],
    ):
        assert main([*command, bad_sector]) == 3
        said = capsys.readouterr()
        assert f"can't read {bad_sector}: read failed: Input/output error" in said.out + said.err


def test_a_file_that_says_no_length(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As much of /proc, it looks like an empty regular file and can't be sought to its end."""
    assert main(["verify", "/proc/self/status", good]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("/proc/self/status: error: at offset 0x0: this is no Xen image")
    assert f"{good}: good; structure checked, pages not read (--full reads them)" in lines


def test_what_follows_compressed_data_is_behind_the_image(
    good: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(good).write_bytes(lzma.compress(Path(good).read_bytes()) + b"more")
    assert main(["verify", good]) == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"{good}: error: in the image's end: the xz data is damaged")


def test_a_bad_image(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "-v", bad]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{bad}: error: at offset 0x")
    assert lines[0].endswith(
        "libxc record 12 (END): the domain is not complete: no X86_TSC_INFO before "
        "[domain-incomplete]"
    )
    assert lines[1].strip().startswith("The domain's state ends without")
    assert lines[2].startswith(f"{bad}: bad, 1 error; ")


def test_many_at_once_in_their_order(
    good: str, bad: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "-j", "2", "--json", bad, good, bad, good]) == 1
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    verified = [event for event in events if event["event"] == "verified"]
    assert [event["file"] for event in verified] == [bad, good, bad, good]
    assert [event["good"] for event in verified] == [False, True, False, True]
    (finding, _) = [event for event in events if event["event"] == "finding"]
    assert (finding["id"], finding["severity"]) == ("domain-incomplete", "error")
    assert (finding["layer"], finding["number"]) == ("libxc", 12)
    assert finding["offset"] > 0


def test_quiet_leaves_the_exit_code(
    good: str, bad: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "-q", good]) == 0
    assert main(["verify", "-q", good, bad]) == 1
    assert capsys.readouterr() == ("", "")


def test_quiet_still_says_what_it_could_not_read(
    good: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "-q", good, f"{good}-not"]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert f"{good}-not" in said.err


def test_a_file_that_is_not_there(good: str, bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "/nonexistent", good]) == 3
    assert main(["verify", "/nonexistent", bad]) == 1
    assert "No such file" in capsys.readouterr().err
    assert main(["verify", "--json", "/nonexistent"]) == 3
    event = json.loads(capsys.readouterr().out)
    assert (event["event"], event["file"], event["exit_code"]) == ("error", "/nonexistent", 3)


def test_the_format_can_be_asked_for(good: str) -> None:
    assert main(["verify", "-q", "--format", "xl", good]) == 0
    assert main(["verify", "-q", "--format", "libxc", good]) == 1


@pytest.mark.parametrize(
    "arguments", [[], ["-j", "0", "x"], ["-j", "x", "x"], ["-j", "-1", "x"], ["--format", "x"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["verify", *arguments])
    assert exit_info.value.code == 2


def test_standard_input_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "-", "-"]) == 2
    assert "more than once" in capsys.readouterr().err


def test_a_pipe(good: str) -> None:
    command = [sys.executable, "-m", "libxlsr", "verify", "-", good]
    with open(good, "rb") as file:
        piped = subprocess.run(command, input=file.read(), capture_output=True, check=False)
    assert (piped.returncode, piped.stderr) == (0, b"")
    assert piped.stdout.startswith(b"-: good; all ")
    with open(good, "rb") as file:
        redirected = subprocess.run(command, stdin=file, stdout=subprocess.PIPE, check=False)
    assert redirected.stdout.startswith(b"-: good; structure checked")


@pytest.mark.parametrize(
    ("closed", "expected"), [(">&-", 0), (">&- 2>&-", 0), ("<&- >&- 2>&-", 0), (">/dev/full", 3)]
)
def test_streams_that_are_closed_or_full(closed: str, expected: int, good: str) -> None:
    shell = f'exec "$@" {closed}'
    for command in (["verify"], ["inspect", "--json"]):
        program = [sys.executable, "-m", "libxlsr", *command, good]
        done = subprocess.run(
            ["sh", "-c", shell, "sh", *program], capture_output=True, text=True, check=False
        )
        assert done.returncode == expected
        assert done.stdout == ""
        assert done.stderr == (
            "libxlsr: error: can't write to standard output: No space left on device\n"
            if expected
            else ""
        )


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_a_directory(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(tmp_path)]) == 3
    assert capsys.readouterr() == ("", f"libxlsr: error: can't read {tmp_path}: Is a directory\n")


@pytest.mark.parametrize("jobs", ["0", "257", "some"])
def test_a_wrong_number_of_jobs(jobs: str, good: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["verify", "-j", jobs, good])
    assert caught.value.code == 2
    assert f"argument -j/--jobs: {jobs} is no" in capsys.readouterr().err
