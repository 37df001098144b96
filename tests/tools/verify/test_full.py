"""``--full`` reads every byte of a file, most by sendfile(), and says what can't be read."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from libxlsr.errors import TargetError
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.page_types import XEN_DOMCTL_PFINFO_L1TAB
from libxlsr.testing.builder import StreamBuilder
from libxlsr.tools.verify.verifier import verify
from tests.tools.verify.verify_images import verify_bytes, verify_through_pipe

PAGES = 3000
IMAGES = {
    "hvm": StreamBuilder("hvm", pages=PAGES),
    "pv": StreamBuilder("pv", pages=PAGES, types={7: XEN_DOMCTL_PFINFO_L1TAB}),
}


@pytest.fixture(params=sorted(IMAGES))
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """An fd of an image, some bytes behind the file's beginning."""
    path = tmp_path / "image"
    path.write_bytes(b"before" + IMAGES[request.param].build())
    fd = os.open(path, os.O_RDONLY)
    os.lseek(fd, 6, os.SEEK_SET)
    yield fd
    os.close(fd)


class Calls:
    """The ranges of the file that the calls which read it were given; bytes from ``bad`` to
    ``bad_end`` are a bad sector."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[tuple[int, int]] = []
        self.bad = self.bad_end = 1 << 62
        self.sendfile_error: int | None = None
        self.sent = 0
        for name in ("pread", "preadv"):
            monkeypatch.setattr(os, name, self._reading(getattr(os, name)))
        monkeypatch.setattr(os, "sendfile", self._sending(os.sendfile))

    def _reading(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(fd: int, what: Any, offset: int) -> Any:
            size = what if isinstance(what, int) else sum(len(buffer) for buffer in what)
            if offset + size > self.bad and offset < self.bad_end:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            done = real(fd, what, offset)
            self.read.append((offset, offset + (done if isinstance(done, int) else len(done))))
            return done

        return call

    def _sending(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(out: int, fd: int, offset: int, count: int) -> int:
            if self.sendfile_error is not None:
                raise OSError(self.sendfile_error, os.strerror(self.sendfile_error))
            if self.bad <= offset < self.bad_end:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            if offset < self.bad:
                count = min(count, self.bad - offset)
            done = real(out, fd, offset, count)
            self.sent += done
            self.read.append((offset, offset + done))
            return done

        return call

    def unread(self, begin: int, end: int) -> list[tuple[int, int]]:
        """What no call was for between ``begin`` and ``end``."""
        gaps = []
        for first, last in sorted(self.read):
            if first > begin:
                gaps.append((begin, first))
            begin = max(begin, last)
        return gaps + ([(begin, end)] if begin < end else [])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def test_every_byte_is_read(image: int, calls: Calls) -> None:
    size = os.fstat(image).st_size
    assert verify(image, full=True).good
    assert calls.unread(6, size) == []
    assert calls.sent >= (PAGES - 1) * 4096


def test_pages_are_not_read_without_it(image: int, calls: Calls) -> None:
    assert verify(image).good
    assert not calls.sent
    assert sum(last - first for first, last in calls.read) < PAGES * 40


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOSYS, errno.EIO])
def test_where_there_is_no_sendfile(image: int, calls: Calls, error: int) -> None:
    calls.sendfile_error = error
    assert verify(image, full=True).good
    assert calls.unread(6, os.fstat(image).st_size) == []


def test_a_bad_sector_in_a_page(image: int, calls: Calls) -> None:
    calls.bad = os.fstat(image).st_size // 2
    calls.bad_end = calls.bad + 512
    assert verify(image).good
    with pytest.raises(TargetError, match="Input/output error"):
        verify(image, full=True)


@pytest.mark.parametrize("guest", sorted(IMAGES))
def test_an_image_cut_off_while_it_is_read(
    guest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "image"
    data = IMAGES[guest].build()
    path.write_bytes(data)
    real = os.sendfile

    def sendfile(out: int, fd: int, offset: int, count: int) -> int:
        os.truncate(path, len(data) // 2)
        return real(out, fd, offset, count)

    monkeypatch.setattr(os, "sendfile", sendfile)
    fd = os.open(path, os.O_RDONLY)
    try:
        verified = verify(fd, full=True)
    finally:
        os.close(fd)
    assert [finding.id for finding in verified.findings] == ["truncated"]
    assert verified.findings[0].offset == len(data) // 2


@pytest.mark.parametrize("size", [1, 4096, PAGES * 2000])
@pytest.mark.parametrize("guest", sorted(IMAGES))
def test_a_short_image_is_short_in_either_way(guest: str, size: int) -> None:
    data = IMAGES[guest].build()[:-size]
    findings = verify_bytes(data).findings
    assert findings != ()
    assert verify_bytes(data, full=True).findings == findings
    assert verify_bytes(data, digest=True).findings == findings
    assert verify_through_pipe(data, digest=True).findings == findings


def test_where_in_a_records_pages_an_image_ends_counts_from_their_first() -> None:
    builder = StreamBuilder("pv", pages=200, batch=200)
    data = builder.build()
    record = builder.find(RecordType.PAGE_DATA)
    cut = data[: builder.offset_of(record) + 8 + 8 + 200 * 8 + 300_000]
    for options in ({}, {"full": True}, {"digest": True}):
        for verified in (verify_bytes(cut, **options), verify_through_pipe(cut, **options)):
            assert "300000 bytes into the pages of PAGE_DATA" in verified.findings[-1].message
