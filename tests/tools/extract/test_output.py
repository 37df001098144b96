"""The output is complete or absent, whatever happens."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

import libxlsr
from libxlsr.events import Ao, Context, run
from libxlsr.formats.page_types import XEN_DOMCTL_PFINFO_XTAB
from libxlsr.restoring.progress import Progress
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.pages import stamped_page
from libxlsr.testing.paging import save
from libxlsr.tools.extract.operation import extract, extract_ao
from libxlsr.tools.extract.request import LAST_ADDRESS, Request

from ...limits import file_size_limit, open_files_limit

RAW = Request("raw")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return save(StreamBuilder("hvm", pages=64), tmp_path / "image")


def test_its_owner_alone_can_read_it(image: Path, tmp_path: Path) -> None:
    extract(image, tmp_path / "raw", RAW)
    assert stat.S_IMODE((tmp_path / "raw").stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["image", "raw"]


def test_what_is_there_stays(image: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("mine")
    with pytest.raises(libxlsr.TargetError, match="exists already"):
        extract(image, tmp_path / "raw", RAW)
    assert (tmp_path / "raw").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["image", "raw"]


@pytest.mark.parametrize("keep", [0, 7, 100, 1000, 5000, 100_000, -8, -1])
def test_a_truncated_image_leaves_nothing(image: Path, tmp_path: Path, keep: int) -> None:
    image.write_bytes(image.read_bytes()[:keep])
    with pytest.raises(libxlsr.StreamError):
        extract(image, tmp_path / "raw", RAW)
    assert os.listdir(tmp_path) == ["image"]


def test_what_follows_the_image_is_refused(image: Path, tmp_path: Path) -> None:
    image.write_bytes(image.read_bytes() + b"rubbish")
    with pytest.raises(libxlsr.StreamError, match="something follows"):
        extract(image, tmp_path / "raw", RAW)
    assert os.listdir(tmp_path) == ["image"]


def test_a_full_disk_while_the_pages_are_located(tmp_path: Path) -> None:
    """Eight bytes a frame: a limit that only they meet, in the middle of a run of frames."""
    run = range(24_990, 25_010)
    absent = {gfn: XEN_DOMCTL_PFINFO_XTAB for gfn in range(run.stop) if gfn not in run}
    image = save(StreamBuilder("pvh", pages=run.stop, types=absent), tmp_path / "image")
    last = Request("raw", frames=(run[-1], run[-1]))
    with file_size_limit(25_000 * 8), pytest.raises(libxlsr.TargetError) as raised:
        extract(image, tmp_path / "raw", last)
    assert raised.value.errno == errno.EFBIG
    assert os.listdir(tmp_path) == ["image"]
    with file_size_limit(run.stop * 8):
        extract(image, tmp_path / "raw", last)
    assert (tmp_path / "raw").read_bytes() == stamped_page(run[-1])


@pytest.mark.parametrize("phase", ["preparing", "memory", "records", "finishing"])
def test_an_abort_on_the_way_leaves_nothing(image: Path, tmp_path: Path, phase: str) -> None:
    ctx = Context()
    with open(image, "rb") as file:

        def progress(progress: Progress) -> None:
            if progress.phase.value == phase:
                ao.abort()

        ao = extract_ao(ctx, file.fileno(), tmp_path / "raw", RAW, on_progress=progress)
        run(ctx, lambda: ao.done)
    with pytest.raises(libxlsr.Aborted):
        ao.result()
    assert os.listdir(tmp_path) == ["image"]
    assert ctx.registered() == []


def test_an_abort_before_anything_ran(image: Path, tmp_path: Path) -> None:
    ctx = Context()
    with open(image, "rb") as file:
        ao = extract_ao(ctx, file.fileno(), tmp_path / "raw", RAW)
        ao.abort()
        run(ctx, lambda: ao.done)
    with pytest.raises(libxlsr.Aborted):
        ao.result()
    assert os.listdir(tmp_path) == ["image"]


def wait(ctx: Context, ao: Ao[Any]) -> None:
    run(ctx, lambda: ao.done)
    ao.result()


def test_no_more_fds_at_the_start(image: Path, tmp_path: Path) -> None:
    """Whichever step is the one that finds none left, what came before it is undone."""
    with open(image, "rb") as file:
        spare = os.dup(file.fileno())
        os.close(spare)
        failures: set[str] = set()
        for more in range(10):
            ctx = Context()
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            try:
                with open_files_limit(spare + more):
                    ao = extract_ao(ctx, file.fileno(), tmp_path / "raw", RAW)
                wait(ctx, ao)
                break
            except libxlsr.TargetError as error:
                failures.add(str(error).split(":")[0])
            assert os.listdir(tmp_path) == ["image"]
            assert ctx.registered() == []
    assert "can't use the stream's fd" in failures
    assert sorted(os.listdir(tmp_path)) == ["image", "raw"]


def test_a_bad_fd(tmp_path: Path) -> None:
    with pytest.raises(libxlsr.TargetError, match="can't use the stream's fd"):
        extract(-1, tmp_path / "raw", RAW)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("vmdk"), "no format 'vmdk'"),
        (Request("raw", frames=(5, 4)), "no range of frames"),
        (Request("raw", vaddr=(0, 1 << 64)), "no range of virtual addresses"),
        (Request("raw", frames=(0, 1), vaddr=(0, 1)), "not both"),
        (Request("elf", cr3=0x1000), "name them too"),
        (Request("lime", vaddr=(0, 1)), "knows no virtual addresses"),
        (Request("xen-core", vaddr=(0, 1)), "knows no virtual addresses"),
        (Request("raw", vaddr=(0, LAST_ADDRESS)), "don't fit into a raw file"),
        (Request("raw", vaddr=(0, (1 << 63) - 1)), "don't fit into a raw file"),
        (Request("raw", vaddr=(1 << 62, (3 << 62) - 1)), "don't fit into a raw file"),
    ],
)
def test_requests_that_contradict_themselves(
    request_: Request, message: str, image: Path, tmp_path: Path
) -> None:
    with pytest.raises(libxlsr.UsageError, match=message):
        extract(image, tmp_path / "out", request_)
    assert os.listdir(tmp_path) == ["image"]
