"""A real domain comes back, and nothing does when it can't."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libxlsr.errors import Aborted, LibxlsrError, TargetError
from libxlsr.events import Ao, Context, run
from libxlsr.operations.progress import RestoreResult
from libxlsr.operations.restore import restore_ao
from libxlsr.targets.xen.target import XenOptions, XenTarget
from libxlsr.xen.xenctrl import Xenctrl

from .guests import Guest, saved_guest, xl

POINTS = 50


def restore(
    fd: int, options: XenOptions | None = None, *, to_eof: bool = True, **kwargs: Any
) -> RestoreResult:
    ctx = Context()
    ao = restore_ao(ctx, fd, XenTarget(ctx, options), to_eof=to_eof, **kwargs)
    run(ctx, lambda: ao.done)
    assert ctx.registered() == []
    return ao.result()


def restore_file(path: Path, options: XenOptions | None = None) -> RestoreResult:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        result = restore(fd, options)
        assert os.lseek(fd, 0, os.SEEK_CUR) == path.stat().st_size
        return result
    finally:
        os.close(fd)


def test_the_guest_goes_on(guest: Guest) -> None:
    before, digest = guest.ticks()[-1]
    result = restore_file(guest.image)
    assert (result.guest.name, result.guest.domain_type) == (guest.name, guest.kind)
    assert xl("domid", guest.name).strip() == str(result.guest.domid)
    number, after = guest.wait_for_ticks(3)[0]
    assert after == digest
    assert number <= before + 1


def test_paused_and_under_another_name(guest: Guest) -> None:
    changes = [("name", f"{guest.name}-other"), ("uuid", "new"), ("memory", "64")]
    result = restore_file(guest.image, XenOptions(overrides=changes, paused=True))
    try:
        assert result.guest.domid is not None
        assert result.guest.name == f"{guest.name}-other"
        with Xenctrl() as xenctrl:
            info = xenctrl.domain_info(result.guest.domid)
        assert info is not None
        assert info.paused
        assert info.cpu_time_ns == 0
    finally:
        xl("destroy", f"{guest.name}-other")


def test_from_a_slow_pipe_in_odd_chunks(guest: Guest) -> None:
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_fd)
        with open(guest.image, "rb") as image, open(write_fd, "wb", buffering=0) as pipe:
            while chunk := image.read(77_777):
                pipe.write(chunk)
            pipe.write(b"the handshake")
        os._exit(0)
    os.close(write_fd)
    try:
        restore(read_fd, to_eof=False)
        # The fd stands at END's end, to the byte.
        assert os.read(read_fd, 100) == b"the handshake"
    finally:
        os.close(read_fd)
        os.waitpid(child, 0)
    guest.wait_for_ticks(1)


def test_two_at_once_on_one_loop() -> None:
    ctx = Context()
    guests = [saved_guest("pv"), saved_guest("pvh")]
    fds = [os.open(guest.image, os.O_RDONLY) for guest in guests]
    try:
        aos = [restore_ao(ctx, fd, XenTarget(ctx), to_eof=True) for fd in fds]
        run(ctx, lambda: all(ao.done for ao in aos))
        assert [ao.result().guest.name for ao in aos] == [guest.name for guest in guests]
    finally:
        for fd, guest in zip(fds, guests):
            os.close(fd)
            guest.destroy()


@pytest.mark.usefixtures("unchanged_host")
@pytest.mark.parametrize("override", ["name", "uuid"])
def test_a_name_or_uuid_that_is_taken(guest: Guest, override: str) -> None:
    result = restore_file(guest.image, XenOptions(paused=True))
    try:
        other = ("uuid", "new") if override == "name" else ("name", "lab-other")
        with pytest.raises(TargetError, match=f"domain {result.guest.domid} has the {override}"):
            restore_file(guest.image, XenOptions(overrides=[other]))
    finally:
        guest.destroy()


@pytest.mark.usefixtures("unchanged_host")
def test_too_little_memory(guest: Guest) -> None:
    huge = [("maxmem", "100000"), ("memory", "90000")]
    with pytest.raises(TargetError, match=r"needs \d+ KiB .* KiB are missing"):
        restore_file(guest.image, XenOptions(overrides=huge))


@pytest.mark.usefixtures("unchanged_host")
@pytest.mark.parametrize("cut", [48, 3000, 100_000, 5_000_000, -8, -9, -1000])
def test_a_cut_image(guest: Guest, tmp_path: Path, cut: int) -> None:
    whole = guest.image.read_bytes()
    damaged = tmp_path / "cut.save"
    damaged.write_bytes(whole[:cut])
    with pytest.raises(LibxlsrError):
        restore_file(damaged)


def libxc_start(image: bytearray) -> int:
    """Where the libxc stream starts: at its marker."""
    return image.index(b"\xff" * 8 + b"XENF")


@pytest.mark.usefixtures("unchanged_host")
@pytest.mark.parametrize("damage", ["length", "type", "assertion"])
def test_a_damaged_libxc_stream(guest: Guest, tmp_path: Path, damage: str) -> None:
    whole = bytearray(guest.image.read_bytes())
    first_record = libxc_start(whole) + 24 + 16
    if damage == "length":
        struct.pack_into("<I", whole, first_record + 4, 0xFFFFFFFF)
    elif damage == "type":
        struct.pack_into("<I", whole, first_record, 0x7FFF)
    else:
        whole[libxc_start(whole) + 24 + 6] = 0xFF  # the page shift's neighbour
        struct.pack_into("<H", whole, libxc_start(whole) + 24 + 4, 63)
    damaged = tmp_path / "damaged.save"
    damaged.write_bytes(whole)
    with pytest.raises(LibxlsrError):
        restore_file(damaged)


@pytest.mark.usefixtures("unchanged_host")
def test_a_cpu_that_the_host_can_not_give(guest: Guest, tmp_path: Path) -> None:
    whole = bytearray(guest.image.read_bytes())
    record = libxc_start(whole) + 24 + 16
    while struct.unpack_from("<I", whole, record)[0] != 0x11:  # X86_CPUID_POLICY
        record += 8 + -(-struct.unpack_from("<I", whole, record + 4)[0] // 8) * 8
    struct.pack_into("<I", whole, record + 8 + 8, 0xFFFF)  # leaf 0: the largest leaf
    foreign = tmp_path / "foreign.save"
    foreign.write_bytes(whole)
    with pytest.raises(TargetError, match="CPUID leaf 0x0 does not fit"):
        restore_file(foreign)


def at_offset(ctx: Context, fd: int, offset: int, act: Callable[[], object]) -> None:
    """Act as soon as the file has been read up to the offset."""

    def look() -> None:
        if os.lseek(fd, 0, os.SEEK_CUR) >= offset:
            act()
        else:
            ctx.call_later(0.001, look)

    look()


def interrupted(image: Path, point: int, act: Callable[[Ao[Any], XenTarget], None]) -> Ao[Any]:
    ctx = Context()
    fd = os.open(image, os.O_RDONLY)
    try:
        target = XenTarget(ctx)
        ao = restore_ao(ctx, fd, target, to_eof=True)
        at_offset(ctx, fd, image.stat().st_size * point // POINTS, lambda: act(ao, target))
        run(ctx, lambda: ao.done)
    finally:
        os.close(fd)
    return ao


@pytest.mark.usefixtures("unchanged_host")
@pytest.mark.parametrize("point", range(POINTS))
def test_aborted(pv_image: Path, point: int) -> None:
    ao = interrupted(pv_image, point, lambda ao, _target: ao.abort())
    with pytest.raises(Aborted):
        ao.result()


@pytest.mark.usefixtures("unchanged_host")
@pytest.mark.parametrize("point", range(1, POINTS))
def test_the_helper_is_killed(pv_image: Path, point: int) -> None:
    def kill(_ao: Ao[Any], target: XenTarget) -> None:
        assert target.helper_pid is not None
        os.kill(target.helper_pid, signal.SIGKILL)

    ao = interrupted(pv_image, point, kill)
    with pytest.raises(TargetError, match="killed by SIGKILL"):
        ao.result()
