"""Commands that get no more fds, no memory, or an error that nobody expected of the system."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from libxlsr.cli import inspect_command
from libxlsr.cli.main import main, parse
from libxlsr.testing.builder import StreamBuilder
from tests.limits import open_files_limit


@pytest.fixture(autouse=True)
def _image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image").write_bytes(StreamBuilder("hvm", pages=8).build())


@pytest.mark.parametrize(
    "command",
    [
        ["restore", "image", "--target", "image", "--output", "output"],
        ["extract", "image", "output"],
        ["convert", "--compact", "image", "output"],
    ],
    ids=lambda command: str(command[0]),
)
def test_too_few_fds(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Whichever step is the one that finds none left: what was made by then goes away."""
    parse(command)  # imports what it needs
    spare = os.dup(0)
    os.close(spare)
    for more in range(40):
        with open_files_limit(spare + more):
            code = main(command)
        said = capsys.readouterr().err
        if code == 0:
            break
        assert (code, len(said.splitlines())) == (3, 1)
        assert said.endswith(": Too many open files\n")
        assert os.listdir() == ["image"]
    assert more > 5
    assert sorted(os.listdir()) == ["image", "output"]


def test_nowhere_to_keep_a_digest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    assert main(["verify", "--digest", "image"]) == 3
    assert capsys.readouterr().err == (
        "libxlsr: error: can't keep the frames' digests: No such file or directory; "
        "let TMPDIR be a directory with room for them\n"
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory"),
        (
            OSError(errno.EINVAL, os.strerror(errno.EINVAL)),
            "the system refused a call: Invalid argument",
        ),
    ],
    ids=["memory", "call"],
)
def test_what_nobody_expected(
    error: Exception,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def inspect(*_arguments: Any, **_options: Any) -> None:
        raise error

    monkeypatch.setattr(inspect_command, "inspect_image", inspect)
    assert main(["inspect", "image"]) == 3
    assert capsys.readouterr() == ("", f"libxlsr: error: {said}\n")
    assert main(["inspect", "--json", "image"]) == 3
    out, err = capsys.readouterr()
    assert json.loads(out)["message"] == said
    assert err == ""
