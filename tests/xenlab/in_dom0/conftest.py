"""Fixtures of the tests that run inside dom0."""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from pathlib import Path

import pytest

from .guests import Guest, saved_guest
from .state import HostState

EXAMPLE = Path(__file__).parents[3] / "examples" / "hvm-ticker-xen4.17.save.xz"


@pytest.fixture(params=["pv", "pvh"])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A saved guest that does not run; destroyed afterwards if it does then."""
    made = saved_guest(request.param)
    made.destroy()
    yield made
    made.destroy()


@pytest.fixture(scope="session")
def pv_image() -> Path:
    return saved_guest("pv").image


@pytest.fixture
def hvm_image(tmp_path: Path) -> Path:
    """The example in the tree: the tiny guest, saved with a device model behind it."""
    image = tmp_path / "hvm.save"
    image.write_bytes(lzma.decompress(EXAMPLE.read_bytes()))
    return image


@pytest.fixture
def unchanged_host() -> Iterator[None]:
    """The test leaves domains, xenstore, files, children and fds as they were."""
    before = HostState.now()
    yield
    assert HostState.now() == before
