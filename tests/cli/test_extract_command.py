"""``libxlsr extract`` as a person or a program runs it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from libxlsr.cli.main import main
from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.legacy import LegacyImage


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StreamBuilder:
    monkeypatch.chdir(tmp_path)
    stream = StreamBuilder("hvm", pages=32)
    Path("image").write_bytes(stream.build())
    return stream


def test_a_file_for_people(image: StreamBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", "image", "out", "--frames", "0x4+2"]) == 0
    assert Path("out").read_bytes() == image.page(4) + image.page(5)
    assert "Extracted out (raw)." in capsys.readouterr().out


def test_a_file_for_programs(image: StreamBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", "image", "out", "--format", "lime", "--frames", "3-9", "--json"]) == 0
    event = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert event["event"] == "extracted"
    assert (event["format"], event["size"]) == ("lime", 32 + 7 * PAGE_SIZE)
    assert event["copied"] == 7 * PAGE_SIZE


def test_an_offline_restore(image: StreamBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restore", "--target", "image", "--output", "guest", "image"]) == 0
    assert main(["extract", "guest", "out"]) == 0
    assert Path("out").stat().st_size == 32 * PAGE_SIZE


def test_no_name_is_no_directory(image: StreamBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", "", "out"]) == 3
    assert (
        capsys.readouterr().err
        == "libxlsr: error: can't open : open failed: No such file or directory\n"
    )


def test_an_old_image_that_only_the_option_tells(
    image: StreamBuilder, capsys: pytest.CaptureFixture[str]
) -> None:
    old = LegacyImage("hvm", width=4, xl_header=None)
    Path("old").write_bytes(old.build())
    assert main(["extract", "old", "out"]) == 1
    assert "--legacy" in capsys.readouterr().err
    assert main(["extract", "--legacy", "--frames", "3", "old", "out"]) == 0
    assert Path("out").read_bytes() == old.page(3)


def test_exit_codes(image: StreamBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    Path("cut").write_bytes(Path("image").read_bytes()[:9999])
    assert main(["extract", "cut", "out"]) == 1
    assert main(["extract", "image", "out", "--cr3", "0x1000"]) == 2
    assert main(["extract", "image", "out", "--frames", "0x100-0x1ff"]) == 2
    assert main(["extract", "missing", "out"]) == 3
    assert main(["extract", "image", "image"]) == 3
    for wrong in (["--frames", "9-3"], ["--frames", "x"], ["--vaddr", "-5"], ["--format", "zip"]):
        with pytest.raises(SystemExit) as raised:
            main(["extract", "image", "out", *wrong])
        assert raised.value.code == 2
    assert sorted(os.listdir()) == ["cut", "image"]
    assert "Traceback" not in capsys.readouterr().err
