"""Fixtures of the tests that run inside dom0."""

from __future__ import annotations

import gc
import json
import lzma
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from . import dom0
from .guests import Guest, saved_guest
from .images import XL_HEADER, Image, Parts, write_changed
from .points import KINDS
from .restoring import loop
from .state import Held, HostState
from .tiny_guests import TinyGuest, saved_tiny_pvh

# Debian 13 keeps /tmp in memory, of which dom0 has little; damaged copies of images are large.
tempfile.tempdir = "/var/tmp"

EXAMPLE = Path(__file__).parents[3] / "examples" / "hvm-ticker-xen4.17.save.xz"


@pytest.fixture(params=KINDS)
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A saved guest that does not run; destroyed afterwards if it does then."""
    made = saved_guest(request.param)
    made.destroy()
    yield made
    made.destroy()


@pytest.fixture(scope="session")
def started() -> Iterator[None]:
    """What lasts as long as the tests: no test leaves more of it than it found."""
    dom0.start()
    shared = loop()
    shared.settle()
    yield
    shared.spare.close()
    dom0.end()


@pytest.fixture
def tiny() -> Iterator[TinyGuest]:
    """The saved tiny PVH guest, which does not run; destroyed afterwards if it does then."""
    made = saved_tiny_pvh()
    made.destroy()
    yield made
    made.destroy()


@pytest.fixture(scope="session")
def tiny_image() -> Path:
    """The tiny PVH guest's: for all where it does not matter what runs in the guest."""
    return saved_tiny_pvh().image


@pytest.fixture(scope="session")
def pv_image() -> Path:
    return saved_guest("pv").image


@pytest.fixture(scope="session")
def hvm_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example in the tree: the tiny guest, saved with a device model behind it."""
    image = tmp_path_factory.mktemp("hvm") / "save"
    image.write_bytes(lzma.decompress(EXAMPLE.read_bytes()))
    return image


@pytest.fixture(autouse=True)
def nothing_leaks(started: None, private_tmpdir: str) -> Iterator[None]:
    """No fd, child process or temporary file outlives a test, but the next spare helper."""
    before = Held.now(private_tmpdir)
    yield
    more = Held.now(private_tmpdir).more_than(before)
    if more:
        gc.collect()  # garbage may hold fds
        more = Held.now(private_tmpdir).more_than(before)
    if more:
        pytest.fail("left behind: " + "; ".join(more), pytrace=False)


@pytest.fixture
def unchanged_host() -> Iterator[HostState]:
    """The test leaves everything of the host's state as it was: that is what it gets."""
    before = HostState.now()
    yield before
    assert HostState.now() == before


@pytest.fixture
def image_with(tiny_image: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes images of the tiny guest, or of another, with other devices: lists of libxl's JSON."""

    def make(original: Path = tiny_image, **lists: Any) -> Path:
        def change(image: Image) -> Parts:
            data = image.data[XL_HEADER.size : image.libxl_start].tobytes()
            config = json.loads(data[4:].rstrip(b"\0"))
            config.update(lists)
            text = json.dumps(config).encode() + b"\0"
            data = struct.pack("<I", len(text)) + text
            header = XL_HEADER.pack(*image.xl_header[:4], len(data))
            return [header, data, image.data[image.libxl_start :]]

        changed = tmp_path / "changed.save"
        write_changed(original, changed, change)
        return changed

    return make
