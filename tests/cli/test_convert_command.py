"""``libxlsr convert`` as a person or a program runs it."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from libxlsr.cli import convert_command
from libxlsr.cli.main import main
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.legacy import LegacyImage
from libxlsr.tools.convert.operation import convert_ao


@pytest.fixture(autouse=True)
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("image").write_bytes(StreamBuilder("pv", pages=40, dirtied=[[1, 2]]).build())


def digest(path: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["verify", "--digest", "--json", path]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["digest"]
    assert isinstance(told, str)
    return told


def test_a_smaller_image_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "--compact", "--compress", "xz", "image", "out"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Wrote out.\n")
    assert f"was {Path('image').stat().st_size}" in said
    assert "40 frames" in said
    assert digest("out", capsys) == digest("image", capsys)


def test_an_image_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "-z", "gzip", "--json", "image", "out"]) == 0
    event = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (event["event"], event["compression"], event["compact"]) == ("converted", "gzip", False)
    assert event["size"] == Path("out").stat().st_size < event["size_before"]


def test_the_image_s_name_may_go_while_it_is_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = Path("image").stat().st_size

    def removed_by_now(*arguments: Any, **options: Any) -> Any:
        Path("image").unlink()
        return convert_ao(*arguments, **options)

    monkeypatch.setattr(convert_command, "convert_ao", removed_by_now)
    assert main(["convert", "--compact", "--json", "image", "out"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["size_before"] == size


@pytest.mark.parametrize("guest", ["pv", "hvm"])
def test_an_image_of_xen_4_5_can_be_verified_then(
    guest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("old").write_bytes(LegacyImage(guest).build())
    assert main(["convert", "old", "new"]) == 0
    capsys.readouterr()
    assert main(["verify", "--full", "--json", "new"]) == 0
    found = {json.loads(line).get("id") for line in capsys.readouterr().out.splitlines()}
    assert "legacy-converted" in found
    assert "libxc-unusual-order" not in found  # a PV guest's vCPUs, before its shared info


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    Path("cut").write_bytes(Path("image").read_bytes()[:9999])
    Path("text").write_text("no image\n" * 9)
    before = sorted(os.listdir())
    assert main(["convert", "cut", "out"]) == 1
    assert main(["convert", "text", "out"]) == 1
    assert main(["convert", "/dev/null", "out"]) == 1
    assert main(["convert", "missing", "out"]) == 3
    assert main(["convert", ".", "out"]) == 3
    assert main(["convert", "image", "image"]) == 3
    assert main(["convert", "image", "no/out"]) == 3
    with pytest.raises(SystemExit) as raised:
        main(["convert", "--compress", "zip", "image", "out"])
    assert raised.value.code == 2
    assert sorted(os.listdir()) == before
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [["convert"], ["extract"], ["restore", "--target", "image", "--output", "output"]],
    ids=lambda command: str(command[0]),
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_an_old_image_that_is_cut_off_has_one_error(
    command: list[str], packed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    data = LegacyImage("pv").build()
    names = ["old"] if command[0] == "restore" else ["old", "output"]
    for size in (20, len(data) // 2, len(data) - 5):
        Path("old").write_bytes(gzip.compress(data[:size]) if packed else data[:size])
        assert main([*command, *names]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"libxlsr: error: at offset {size:#x}: the stream ends ")
