"""The memory of a real Linux guest, as other programs read it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from libxlsr.tools.convert.operation import convert
from libxlsr.tools.extract.operation import extract
from libxlsr.tools.extract.request import LAST_ADDRESS, Request

from .guests import SavedGuest, saved_linux
from .host import Host

BANNER = b"Linux version "

# Takes gdb, and volatility3 where that is installed.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["pv", "pvh"])
def image(
    request: pytest.FixtureRequest, xen_host: Host, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The image of a saved Linux guest, brought here."""
    saved: SavedGuest = saved_linux(xen_host, request.param)
    path: Path = tmp_path_factory.mktemp("image") / saved.kind
    xen_host.get(saved.image, path)
    return path


def gdb(core: Path, *commands: str) -> str:
    """What gdb says of a core."""
    words = [word for command in commands for word in ("-ex", command)]
    return subprocess.run(
        ["gdb", "-nx", "-batch", "-core", str(core), *words],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=True,
    ).stdout


@pytest.mark.skipif(shutil.which("gdb") is None, reason="no gdb")
def test_gdb_reads_the_kernel_at_its_own_addresses(image: Path, tmp_path: Path) -> None:
    extract(image, tmp_path / "raw", Request("raw"))
    physical = (tmp_path / "raw").read_bytes().find(BANNER)
    extract(image, tmp_path / "core", Request("elf", vaddr=(0, LAST_ADDRESS)))
    said = gdb(tmp_path / "core", f"x/s {0xFFFFFFFF80000000 + physical:#x}", "x/i $rip", "p $rip")
    assert '"Linux version ' in said
    assert "Cannot access memory" not in said
    assert "0xffffffff8" in said.splitlines()[-1], "it was saved while its kernel ran"


def test_every_format_finds_the_kernels_banner(image: Path, tmp_path: Path) -> None:
    volatility = Path(sys.executable).with_name("vol")
    if not volatility.exists():
        pytest.skip("no volatility3 (pip install volatility3)")
    expected = None
    formats = ["raw", "elf", "lime"] + ["xen-core"] * (image.name == "pvh")
    for name in formats:
        extract(image, tmp_path / name, Request(name))
        found = subprocess.run(
            [volatility, "-q", "-f", tmp_path / name, "banners.Banners"],
            capture_output=True,
            text=True,
            timeout=600,
            check=True,
        ).stdout
        banners = [line.split("\t") for line in found.splitlines() if "Linux version" in line]
        assert banners
        expected = expected or banners
        assert banners == expected, name


def test_a_compact_image_of_an_idle_guest_is_the_image_itself(image: Path, tmp_path: Path) -> None:
    convert(image, tmp_path / "compact", compact=True)
    assert (tmp_path / "compact").read_bytes() == image.read_bytes()
    convert(image, tmp_path / "packed", compact=True, codec="zstd")
    assert (tmp_path / "packed").stat().st_size < image.stat().st_size // 4
