"""``libxlsr inspect`` and ``libxlsr diff`` as a person or a program uses them."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from libxlsr.cli.main import main
from libxlsr.formats.libxc import RecordType
from libxlsr.testing.builder import StreamBuilder, config_json
from tests.paths import EXAMPLE


@pytest.fixture
def images(tmp_path: Path) -> tuple[str, str]:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(StreamBuilder("pv").build())
    other.write_bytes(StreamBuilder("pv", dirtied=[[1, 2, 3], [5]]).build())
    return str(one), str(other)


def test_inspect_for_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(EXAMPLE)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in (
        "guest ticker, hvm",
        "saved by Xen 4.17",
        "0xfeff0-0xfefff 16 NOTAB",
        "libxc PAGE_DATA 1020, 11444192 bytes",
        "CPU[0] rsp=0x102010 rip=0x10005f cr0=0x11 cr3=0x0 cr4=0x0",
        "CONSOLE_PFN 0xfefff",
        "cpu version 12, 1364 bytes",
    ):
        assert line in lines
    assert max(map(len, lines)) < 400


def test_inspect_says_more(images: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "-v", images[1]]) == 0
    out = capsys.readouterr().out
    assert "0.registers.r15" in out
    assert "Rounds" in out


def test_rounds_that_are_not_shown_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "image"
    image.write_bytes(StreamBuilder("pv", dirtied=[[1]] * 30).build())
    rounds = len(json.loads(inspected(image, "--json", capsys))["memory"]["rounds"])
    assert rounds > 20
    assert f"{rounds - 20} more" in inspected(image, "--full", capsys)
    assert "more" not in inspected(image, "-v", capsys)


def inspected(image: Path, option: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["inspect", option, str(image)]) == 0
    return capsys.readouterr().out


def shown(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """What inspect prints in its two columns, by the first of them."""
    assert main(["inspect", *arguments]) == 0
    rows: dict[str, list[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        name, _, value = line.strip().partition("  ")
        rows.setdefault(name, []).append(value.strip())
    return rows


def test_lists_are_cut_for_a_person_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(EXAMPLE)]) == 0
    assert "..." in capsys.readouterr().out
    rows = shown(["-v", str(EXAMPLE)], capsys)
    assert not [value for values in rows.values() for value in values if "..." in value]
    assert len(rows["IOAPIC[0].redirtbl"][0].split()) == 48
    assert len(rows["MTRR[0].variable"][0].split()) == 16
    assert len(rows["RTC[0].cmos"][0].split()) == 14


DESCRIPTION = {
    "devices": [
        {
            "name": "timer",
            "instance_id": 0,
            "vmsd_name": "timer",
            "version": 2,
            "fields": [{"name": "ticks", "size": 8}, {"name": "pair", "size": 2, "array_len": 3}],
            "subsections": [{"vmsd_name": "timer/icount", "fields": [{"size": 8}]}],
        },
        {"name": 7, "fields": [{"size": "x"}, None], "subsections": 9},
        "no device",
    ]
}


def test_the_device_models_header_and_description(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = struct.pack(">BI", 7, 5) + b"xenfv"
    text = json.dumps(DESCRIPTION).encode()
    described = machine + b"\0\6" + struct.pack(">I", len(text)) + text
    path = tmp_path / "image"
    path.write_bytes(StreamBuilder(emulator=b"QEVM\0\0\0\3" + described).build())
    rows = shown([str(path)], capsys)
    assert rows["version"] == ["3"]
    assert rows["machine"] == ["xenfv"]
    assert rows["description"] == [f"{len(text)} bytes, of 2 devices"]
    assert "timer" not in rows
    rows = shown(["-v", str(path)], capsys)
    assert rows["timer"] == ["instance 0, version 2, 2 fields, 22 bytes, subsections timer/icount"]
    assert rows["7"] == ["instance ?, version ?, 1 fields, 0 bytes"]


def test_a_device_model_that_says_little_of_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = shown([str(EXAMPLE)], capsys)
    assert (rows["version"], rows["machine"]) == (["3"], ["(not named)"])
    assert rows["description"] == ["none"]
    path = tmp_path / "image"
    path.write_bytes(StreamBuilder(emulator=b"none of QEMU's").build())
    assert "description" not in shown(["-v", str(path)], capsys)


def test_keys_of_the_device_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = [("physmap/" + "a" * 1000, ""), *((f"physmap/{key}", "") for key in range(50))]
    (tmp_path / "image").write_bytes(StreamBuilder(xenstore=keys).build())
    lines = {}
    for option in ("-v", "--full"):  # the latter shows no more
        assert main(["inspect", option, str(tmp_path / "image")]) == 0
        out = capsys.readouterr().out
        lines[option] = [line for line in out.splitlines() if "physmap/" in line]
    assert [len(some) for some in lines.values()] == [51, 20]
    assert len(lines["-v"][0]) > 1000
    assert max(map(len, lines["-v"][1:])) < 60


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_name_that_the_terminal_can_not_show(encoding: str, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(StreamBuilder("pv", config=config_json("pv", 16, name="gäst-名")).build())
    for command in (["inspect"], ["verify"], ["diff", str(image)]):
        done = subprocess.run(
            [sys.executable, "-m", "libxlsr", *command, str(image)],
            env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        name = "gäst-名".encode(encoding, "backslashreplace")
        assert (name in done.stdout) == (command[0] == "inspect")


def test_inspect_for_a_program(images: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--json", images[0]]) == 0
    description = json.loads(capsys.readouterr().out)
    assert description["event"] == "inspected"
    assert description["image"]["guest"] == "pv"


@pytest.mark.parametrize(
    "arguments",
    ["inspect --html - IMAGE", "extract IMAGE -", "convert IMAGE -"],
)
def test_standard_output_is_no_file(
    arguments: str,
    images: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = Path(images[0]).parent
    monkeypatch.chdir(directory)
    with pytest.raises(SystemExit, match=r"^2$"):
        main(arguments.replace("IMAGE", images[0]).split())
    assert "standard output is not written to; name a file" in capsys.readouterr().err
    assert not (directory / "-").exists()


def test_a_file_of_that_name(images: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Path(images[0]).parent
    monkeypatch.chdir(directory)
    assert main(["inspect", "--html", "./-", images[0]]) == 0
    assert (directory / "-").read_text().startswith("<!DOCTYPE html>")


def test_inspect_of_a_damaged_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut"
    stream = StreamBuilder()
    tsc = stream.find(RecordType.X86_TSC_INFO)
    tsc.body = struct.pack("<IIQII", 9, 0, 0, 0, 0)
    path.write_bytes(stream.build()[:-8])
    assert main(["inspect", str(path)]) == 1
    out = capsys.readouterr().out
    place = f"at offset {stream.offset_of(tsc) + 8:#x}, libxc record [0-9]+ .X86_TSC_INFO."
    assert re.search(f"tsc-info +error: {place}: TSC mode is", out)
    assert re.search("truncated +error: at offset 0x[0-9a-f]+, libxl record 3: the image ends", out)
    path.write_bytes(b"no image")
    assert main(["inspect", str(path)]) == 1
    assert "this is no Xen image" in capsys.readouterr().err


def test_diff_of_the_same(images: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", images[0], images[0]]) == 0
    assert capsys.readouterr().out == "pages: 16 the same\nthe guest's state is the same\n"


def test_diff(images: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", *images]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "pages: 12 the same",
        "  4 differ in contents: 0x1-0x3, 0x5",
        "records (no part of the state):",
        "  libxc PAGE_DATA: 1 -> 3",
        "the guest's state differs",
    ]


def test_diff_of_lists_of_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    devices = {"a": ["tablet", "mouse"], "b": ["mouse", "tablet"], "c": ["mouse", "keyboard"]}
    for name, names in devices.items():
        config = config_json("hvm", 16)
        config["b_info"]["usbdevice_list"] = names
        (tmp_path / name).write_bytes(StreamBuilder(config=config).build())
    shown = {}
    for other in "bc":
        main(["diff", str(tmp_path / "a"), str(tmp_path / other)])
        (shown[other],) = [
            line.strip() for line in capsys.readouterr().out.splitlines() if "usbdevice" in line
        ]
    assert shown == {
        "b": 'b_info.usbdevice_list: ["tablet", "mouse"] -> ["mouse", "tablet"]',
        "c": "b_info.usbdevice_list: -tablet +keyboard",
    }


def test_diff_for_a_program(images: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "--json", *images]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["event"] == "difference"
    assert found["same_state"] is False
    assert found["pages"]["contents"] == {"frames": 4, "ranges": [[1, 3], [5, 1]]}


def test_diff_quietly(images: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "-q", *images]) == 1
    assert main(["diff", "-q", images[0], "/nonexistent"]) == 3
    assert main(["diff", "-", "-"]) == 2
    assert capsys.readouterr().out == ""
