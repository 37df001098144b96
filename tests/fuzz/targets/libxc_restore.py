"""Invariant: any libxc stream, whole or in small reads, is restored into files that agree with what
the restore says of it, or is refused with one error and the same one; no fd and no file stays.
Byte 0: how many checkpoints are granted before one is refused, and how."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from libxlsr.errors import Aborted, LibxlsrError, StreamError, TargetError
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.formats.page_types import XEN_DOMCTL_PFINFO_XTAB
from libxlsr.restoring.image import layout
from libxlsr.restoring.image.libxc_restore import LibxcRestore
from libxlsr.source.exact_reader import ExactReader
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.parts import join

from ..invariants import check_message

OFFSET = 64
"""Where the libxc stream begins in the whole one."""

_TMPFS = "/dev/shm" if os.path.isdir("/dev/shm") else None


class _SmallReads(ExactReader):
    """As a slow pipe gives them: no read brings more than 251 bytes."""

    def _some(self, most: int = 251) -> bytes:
        return super()._some(min(most, 251))

    def _readv(self, view: memoryview) -> int:
        return super()._readv(view[:251])


def check(data: bytes) -> None:
    if not data:
        return
    directory = Path(tempfile.mkdtemp(dir=_TMPFS))
    fd = os.memfd_create("stream")
    try:
        os.write(fd, data[1:])
        whole = _restore(ExactReader, fd, directory / "whole", data[0])
        chunked = _restore(_SmallReads, fd, directory / "chunked", data[0])
        assert whole == chunked
    finally:
        os.close(fd)
        shutil.rmtree(directory)


def _restore(kind: type[ExactReader], fd: int, directory: Path, control: int) -> object:
    directory.mkdir()
    os.lseek(fd, 0, os.SEEK_SET)
    granted = control & 3
    refusal = CheckpointReply.FAILOVER if control & 4 else CheckpointReply.ERROR
    lent_at = 0

    def checkpoint(consumed: int) -> tuple[CheckpointReply, int]:
        nonlocal granted, lent_at
        lent_at += consumed
        assert os.lseek(fd, 0, os.SEEK_CUR) == lent_at
        granted -= 1
        return refusal if granted < 0 else CheckpointReply.SUCCESS, OFFSET + lent_at

    fds = len(os.listdir("/proc/self/fd"))
    try:
        restore = LibxcRestore(kind(fd, OFFSET), directory, lambda counters: None, checkpoint)
        result = restore.run()
    except LibxlsrError as error:
        assert isinstance(error, (StreamError, Aborted)), error
        check_message(error)
        if isinstance(error, StreamError) and error.offset is not None:
            assert OFFSET <= error.offset <= OFFSET + os.fstat(fd).st_size
        return str(error)
    except OSError as error:
        # What the file system refuses, as it does a frame beyond its longest file.
        error_class = TargetError.from_oserror(error, "can't write")
        check_message(error_class)
        return str(error_class)
    finally:
        assert len(os.listdir("/proc/self/fd")) == fds
    _check_files(directory, result)
    if result["failover"] is None:
        consumed = result["consumed"]
        assert isinstance(consumed, int)
        assert os.lseek(fd, 0, os.SEEK_CUR) == lent_at + consumed
    return result


def _check_files(directory: Path, result: dict[str, object]) -> None:
    pages = result["pages"]
    assert isinstance(pages, dict)
    types = directory / layout.PAGE_TYPES
    if types.stat().st_size <= 1 << 20:
        sent = [byte for byte in types.read_bytes() if byte]
        assert all(byte & layout.PAGE_TYPE_SENT for byte in sent)
        assert len(sent) == sum(pages.values())
    assert (directory / layout.MEMORY).stat().st_size % PAGE_SIZE == 0
    assert not list(directory.glob("tmp*")), "what is kept aside has no name"


def _stream(guest: str, contents: Collection[int] = (), **options: Any) -> bytes:
    """A libxc stream of six frames, few of which have contents: a corpus is to be small."""
    without_contents = {gfn: XEN_DOMCTL_PFINFO_XTAB for gfn in range(6) if gfn not in contents}
    builder = StreamBuilder(guest, pages=6, types=without_contents, xl_header=False, **options)
    return join(part for part in builder.parts if part.layer == "libxc")


def seeds() -> Mapping[str, bytes]:
    return {
        "hvm": b"\0" + _stream("hvm", [0]),
        "hvm-verify": b"\0" + _stream("hvm", verify=True),
        "hvm-checkpoints": b"\3" + _stream("hvm", checkpoints=[[0], [2, 3]]),
        "hvm-failover": b"\5" + _stream("hvm", checkpoints=[[1], [2, 3]]),
        "pv": b"\0" + _stream("pv"),
        "pv-v2": b"\0" + _stream("pv", version=2, guest_width=4),
    }
