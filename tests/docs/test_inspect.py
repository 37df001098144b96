"""docs/inspect.md names each field of what inspect and diff say in JSON, and no other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from libxlsr.cli.main import main
from libxlsr.testing.builder import StreamBuilder
from tests.paths import EXAMPLE, ROOT

PAGE = ROOT / "docs" / "inspect.md"


def section(title: str) -> str:
    return re.split(r"^##", PAGE.read_text().split(f"# {title}\n")[1], flags=re.MULTILINE)[0]


def rows(title: str) -> set[str]:
    """The names in the first column of a section's table."""
    first = re.findall(r"^\| (`[^|]*) \|", section(title), flags=re.MULTILINE)
    return set(re.findall(r"`(\w+)`", " ".join(first)))


def unnamed(title: str, names: Iterable[str]) -> set[str]:
    return {name for name in names if f"`{name}`" not in section(title)}


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    main([*arguments])
    members: dict[str, Any] = json.loads(capsys.readouterr().out)
    return members


@pytest.fixture
def pv(tmp_path: Path) -> str:
    path = tmp_path / "pv"
    path.write_bytes(StreamBuilder("pv", dirtied=[[1]]).build())
    return str(path)


def test_inspect(pv: str, capsys: pytest.CaptureFixture[str]) -> None:
    hvm, other = (said(capsys, "inspect", "--json", image) for image in (str(EXAMPLE), pv))
    assert rows("inspect --json") == set(hvm)
    assert not unnamed("inspect --json", [*hvm["image"], *hvm["headers"], *hvm["records"][0]])
    assert rows("memory") == set(hvm["memory"])
    inner = [hvm["memory"]["map"], hvm["memory"]["ranges"][0], hvm["memory"]["rounds"][0]]
    assert not unnamed("memory", [name for names in inner for name in names])
    assert rows("state") == {*hvm["state"], *other["state"], "emulator_keys"}  # has no fields
    vcpu = other["state"]["vcpus"]["0"]
    emulator = hvm["state"]["emulator"]
    assert not unnamed("state", [*vcpu, *emulator, *emulator["sections"][0]])
    for kind in ("tsc", "cpuid", "pv_info", "p2m", "shared_info"):
        assert not unnamed("state", {**hvm["state"], **other["state"]}[kind])


def test_diff(pv: str, capsys: pytest.CaptureFixture[str]) -> None:
    difference = said(capsys, "diff", "--json", pv, pv)
    assert rows("diff --json") == set(difference)
    assert not unnamed("diff --json", difference["pages"])
