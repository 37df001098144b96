"""Faults from outside: dead helpers, full disks, wrong outputs, broken inputs.

Each ends in one clear error and leaves nothing.
"""

from __future__ import annotations

import errno
import gzip
import json
import lzma
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from libxlsr.errors import BackendUnavailable, LibxlsrError, StreamError, TargetError
from libxlsr.events import Ao, Context
from libxlsr.formats.libxc import RecordType as LibxcRecordType
from libxlsr.restoring.image.target import ImageTarget
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import Phase, Progress, RestoreResult
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.in_process import InProcessImageTarget
from libxlsr.testing.leaks import children
from libxlsr.testing.offline import restore_bytes
from libxlsr.testing.pages import PageBatch
from libxlsr.testing.stepping import run_until, run_until_idle

from ..limits import file_size_limit, open_files_limit

DATA = StreamBuilder("hvm").build()


def target_error(data: bytes, output: Path, number: int | None) -> TargetError:
    with pytest.raises(TargetError) as caught:
        restore_bytes(data, output)
    assert caught.value.errno == number
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    return caught.value


# The helper


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
@pytest.mark.parametrize("kept", [0, 8, 600, 40_000], ids=str)
def test_a_helper_that_dies(
    ctx: Context, tmp_path: Path, signum: signal.Signals, kept: int
) -> None:
    """While it waits for bytes, before and behind the first record of libxc."""
    stream = StreamBuilder("hvm")
    start = stream.offset_of(stream.find(LibxcRecordType.X86_CPUID_POLICY)) - 40
    read_end, write_end = os.pipe()
    try:
        os.write(write_end, stream.build()[: start + kept])
        ao = restore_ao(ctx, read_end, target=ImageTarget(ctx, tmp_path / "guest"))
        run_until(ctx, lambda: bool(children()))
        (pid,) = children()
        os.kill(pid, signum)
        run_until(ctx, lambda: ao.done)
    finally:
        os.close(read_end)
        os.close(write_end)
    with pytest.raises(TargetError, match=f"the helper was killed by {signum.name}"):
        ao.result()
    assert os.listdir(tmp_path) == []


class _DiesAtCheckpoint(ImageTarget):
    """Its helper is killed when it has asked for the ``last`` checkpoint."""

    last = 1
    asked = 0

    def _helper_call(
        self, name: str, args: dict[str, Any], reply: Callable[[dict[str, Any]], None]
    ) -> None:
        super()._helper_call(name, args, reply)
        self.asked += 1
        if self.asked == self.last:
            assert self._helper is not None
            assert self._helper.pid is not None
            os.kill(self._helper.pid, signal.SIGKILL)


@pytest.mark.parametrize("last", [1, 2])
@pytest.mark.parametrize("rest", [False, True])
def test_a_helper_that_dies_while_its_fd_is_lent_out_for_a_checkpoint(
    ctx: Context, tmp_path: Path, last: int, rest: bool
) -> None:
    """``rest``: the checkpoint's records are there, or the reader waits for them."""
    stream = StreamBuilder("hvm", checkpoints=[[1], [2]], pages=4)
    if not rest:
        stream.truncate_after(stream.find(LibxcRecordType.CHECKPOINT, last - 1))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(stream.build())
        target = _DiesAtCheckpoint(ctx, tmp_path / "guest")
        target.last = last
        ao = restore_ao(ctx, ours.fileno(), target=target)
        run_until(ctx, lambda: ao.done)
        assert not ours.getblocking()
    with pytest.raises(TargetError, match="the helper was killed by SIGKILL"):
        ao.result()
    assert os.listdir(tmp_path) == []


def test_the_decompressor_dies(ctx: Context, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    try:
        os.write(write_end, gzip.compress(DATA)[:500])
        ao = restore_ao(ctx, read_end, target=ImageTarget(ctx, tmp_path / "guest"))
        run_until(ctx, lambda: bool(children()))
        (pid,) = children()
        os.kill(pid, signal.SIGKILL)
        run_until(ctx, lambda: ao.done)
    finally:
        os.close(read_end)
        os.close(write_end)
    with pytest.raises(TargetError, match="the helper was killed by SIGKILL"):
        ao.result()
    assert os.listdir(tmp_path) == []


# The disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 64 KiB."""
    mount_point = tmp_path / "disk"
    mount_point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount_point)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs root, to mount a small tmpfs")
    try:
        yield mount_point
    finally:
        subprocess.run(["umount", str(mount_point)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    error = target_error(StreamBuilder("hvm", pages=64).build(), small_disk / "g", errno.ENOSPC)
    assert f"can't write the guest's memory and state in {small_disk}" in str(error)
    assert os.listdir(small_disk) == []


def test_a_disk_that_the_device_model_fills(small_disk: Path) -> None:
    stream = StreamBuilder("hvm", pages=2, emulator=bytes(range(256)) * 400)
    error = target_error(stream.build(), small_disk / "g", errno.ENOSPC)
    assert "can't write emulator/context" in str(error)
    assert os.listdir(small_disk) == []


def test_a_disk_that_is_full_from_the_start(small_disk: Path) -> None:
    (small_disk / "other").write_bytes(bytes(64 << 10))
    target_error(DATA, small_disk / "g", errno.ENOSPC)
    assert os.listdir(small_disk) == ["other"]


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    data = StreamBuilder("pvh", pages=100).build()
    with file_size_limit(200_000), pytest.raises(TargetError) as caught:
        restore_bytes(data, tmp_path / "guest", way="pipe")
    assert caught.value.errno == errno.EFBIG
    assert os.listdir(tmp_path) == []


# The output


@pytest.mark.parametrize("kind", ["file", "directory", "empty directory", "dangling symlink"])
def test_an_output_that_exists(tmp_path: Path, kind: str) -> None:
    output = tmp_path / "guest"
    if kind == "file":
        output.write_text("mine")
    elif kind == "dangling symlink":
        output.symlink_to("nowhere")
    else:
        output.mkdir()
        if kind == "directory":
            (output / "mine").write_text("mine")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    error = target_error(DATA, output, errno.EEXIST)
    assert f"the output {output} exists already" in str(error)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["file", "empty directory", "dangling symlink"])
def test_an_output_that_comes_to_be_meanwhile(tmp_path: Path, kind: str) -> None:
    output = tmp_path / "guest"

    def on_progress(progress: Progress) -> None:
        if progress.phase is Phase.RECORDS and not os.path.lexists(output):
            if kind == "file":
                output.write_text("mine")
            elif kind == "dangling symlink":
                output.symlink_to("nowhere")
            else:
                output.mkdir()

    with pytest.raises(TargetError) as caught:
        restore_until_published(DATA, output, on_progress)
    assert caught.value.errno == errno.EEXIST
    assert os.listdir(tmp_path) == ["guest"]
    assert not output.is_dir() or os.listdir(output) == []


def restore_until_published(
    data: bytes, output: Path, on_progress: Callable[[Progress], None]
) -> None:
    ctx = Context()
    fd = os.memfd_create("image")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        target = InProcessImageTarget(ctx, output)
        ao = restore_ao(ctx, fd, target=target, on_progress=on_progress)
        run_until(ctx, lambda: ao.done)
    finally:
        os.close(fd)
    assert ctx.registered() == []
    ao.result()


@pytest.mark.parametrize(
    ("output", "number"),
    [
        ("", errno.EEXIST),
        ("/", errno.EEXIST),
        (".", errno.EEXIST),
        ("no/such/parent", errno.ENOENT),
        ("file/guest", errno.ENOTDIR),
        ("/proc/guest", errno.ENOENT),
        ("x" * 256, errno.ENAMETOOLONG),
        ("a\0b", errno.EINVAL),
    ],
)
def test_an_impossible_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, number: int
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    ctx = Context()
    fd = os.memfd_create("image")
    try:
        os.write(fd, DATA)
        os.lseek(fd, 0, os.SEEK_SET)
        ao = restore_ao(ctx, fd, target=ImageTarget(ctx, Path(output)))
        run_until(ctx, lambda: ao.done)
    finally:
        os.close(fd)
    with pytest.raises(TargetError) as caught:
        ao.result()
    assert caught.value.errno == number
    assert "\0" not in str(caught.value)
    assert os.listdir(tmp_path) == ["file"]


def test_an_unwritable_parent(tmp_path: Path) -> None:
    if not os.geteuid():
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    target_error(DATA, tmp_path / "guest", errno.EACCES)


@pytest.mark.parametrize("name", ["guest/", "x" * 255, "\N{SNOWMAN}" * 85, "-rf", "a b\n"])
def test_an_odd_output(tmp_path: Path, name: str) -> None:
    restore_bytes(DATA, tmp_path / name)
    assert (tmp_path / name / "image.json").exists()


def test_nobody_else_may_read_a_guest(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        restore_bytes(StreamBuilder("hvm", xenstore=[("physmap/a/b", "c")]).build(), tmp_path / "g")
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode & 0o777 for path in [tmp_path / "g", *tmp_path.rglob("g/*")]}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


def test_the_manifest_names_every_file(tmp_path: Path) -> None:
    restore_bytes(StreamBuilder("pv", vcpus=2).build(), tmp_path / "g")
    manifest = json.loads((tmp_path / "g" / "image.json").read_bytes())
    there = {str(p.relative_to(tmp_path / "g")) for p in tmp_path.rglob("g/**/*") if p.is_file()}
    assert set(manifest["files"]) == there
    assert len(manifest["files"]) == len(there)
    assert str(tmp_path) not in json.dumps(manifest)


# The input


def test_a_closed_pipe(ctx: Context, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(write_end)
    ao = restore_ao(ctx, read_end, target=ImageTarget(ctx, tmp_path / "guest"))
    run_until(ctx, lambda: ao.done)
    os.close(read_end)
    with pytest.raises(StreamError) as caught:
        ao.result()
    assert caught.value.offset == 0
    assert "truncated or empty" in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kept", [4, 30])
def test_a_connection_that_is_reset(ctx: Context, tmp_path: Path, kept: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        connection, _ = server.accept()
    with connection:
        client.sendall(DATA[:kept])
        ao = restore_ao(ctx, connection.fileno(), target=ImageTarget(ctx, tmp_path / "guest"))
        run_until_idle(ctx)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        run_until(ctx, lambda: ao.done)
    with pytest.raises(TargetError) as caught:
        ao.result()
    assert caught.value.errno == errno.ECONNRESET
    assert "can't read the stream" in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_directory(tmp_path: Path) -> None:
    ctx = Context()
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        ao = restore_ao(ctx, fd, target=ImageTarget(ctx, tmp_path / "guest"))
        run_until(ctx, lambda: ao.done)
    finally:
        os.close(fd)
    with pytest.raises(TargetError) as caught:
        ao.result()
    assert caught.value.errno == errno.EISDIR


@pytest.mark.parametrize("fd", [-1, 999_999])
def test_no_fd_at_all(ctx: Context, tmp_path: Path, fd: int) -> None:
    with pytest.raises(TargetError) as caught:
        restore_ao(
            ctx, fd, RestoreOptions(deadline=60), target=ImageTarget(ctx, tmp_path / "guest")
        )
    assert caught.value.errno == errno.EBADF


def wait(ctx: Context, ao: Ao[RestoreResult]) -> None:
    run_until(ctx, lambda: ao.done)
    ao.result()


def test_no_more_fds(tmp_path: Path) -> None:
    """Whichever step is the one that finds none left, it says so and leaves none."""
    fd = os.memfd_create("image")
    spare = os.dup(fd)
    os.close(spare)
    failures: set[str] = set()
    try:
        os.write(fd, gzip.compress(DATA))
        for more in range(40):
            os.lseek(fd, 0, os.SEEK_SET)
            ctx = Context()
            # The loop's own fds are there first: without them nothing can be said.
            try:
                with open_files_limit(spare + more):
                    wait(ctx, restore_ao(ctx, fd, target=ImageTarget(ctx, tmp_path / "guest")))
                break
            except LibxlsrError as error:
                failures.add(str(error).split(":")[0])
            assert ctx.registered() == []
            assert os.listdir(tmp_path) == []
        else:
            raise AssertionError(f"never enough fds: {failures}")
    finally:
        os.close(fd)
    assert {"can't use the stream's fd", "can't make a pipe for the image"} <= failures
    assert "can't start a helper process" in failures


# Compressed images that are damaged


def compressed(codec: str) -> bytes:
    if codec == "gzip":
        return gzip.compress(DATA)
    if codec == "xz":
        return lzma.compress(DATA)
    # With a checksum, as the zstd program writes it.
    zstandard = pytest.importorskip("zstandard")
    return bytes(zstandard.ZstdCompressor(write_checksum=True).compress(DATA))


@pytest.mark.parametrize("codec", ["gzip", "xz", "zstd"])
def test_damaged_compressed_data(codec: str, tmp_path: Path) -> None:
    whole = compressed(codec)
    damaged = [whole[:kept] for kept in (10, 100, len(whole) // 2, len(whole) - 1)]
    damaged.append(whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:])
    if codec == "gzip":
        damaged.append(whole + b"rubbish")
    for data in damaged:
        with pytest.raises(StreamError) as caught:
            restore_bytes(data, tmp_path / "guest")
        if len(data) > 100:
            assert f"the {codec} data is damaged" in str(caught.value)
        assert os.listdir(tmp_path) == []


def test_compressed_twice(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="this is no Xen image"):
        restore_bytes(gzip.compress(gzip.compress(DATA)), tmp_path / "guest")


def test_zstd_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child gets the parent's import path: a zstandard that can't be imported comes first."""
    zstandard = pytest.importorskip("zstandard")
    hiding = tmp_path / "hiding"
    hiding.mkdir()
    (hiding / "zstandard.py").write_text("raise ImportError('hidden')\n")
    monkeypatch.syspath_prepend(str(hiding))
    (tmp_path / "out").mkdir()
    with pytest.raises(BackendUnavailable, match="needs the package zstandard") as caught:
        restore_bytes(zstandard.compress(DATA), tmp_path / "out" / "guest")
    assert "pip install" in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"hello, world, this is no image", "this is no Xen image"),
        (bytes(100), "this is no Xen image"),
        (b"LinuxGuestRecord" + bytes(100), "Xen 4.5 or older"),
        (b"Xen", "the stream ends 3 bytes into"),
        (b"", "the stream ends 0 bytes into"),
    ],
)
def test_what_is_no_image(tmp_path: Path, data: bytes, problem: str) -> None:
    with pytest.raises(StreamError) as caught:
        restore_bytes(data, tmp_path / "guest")
    assert problem in str(caught.value)


def test_frames_beyond_what_a_file_can_hold(tmp_path: Path) -> None:
    """A sparse file has its limits too: an error, and no attempt to fill the holes."""
    stream = StreamBuilder("pvh")
    stream.find(LibxcRecordType.PAGE_DATA).body = PageBatch([((1 << 40) - 1, 0)])
    with pytest.raises(LibxlsrError):
        restore_bytes(stream.build(), tmp_path / "guest")
