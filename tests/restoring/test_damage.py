"""Damaged streams: each is restored, or is an error of libxlsr's, and never anything else."""

from __future__ import annotations

import os
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from libxlsr.errors import LibxlsrError
from libxlsr.events import Context
from libxlsr.formats.libxc import RecordType as LibxcRecordType
from libxlsr.restoring.image.target import ImageTarget
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.damage import damage
from libxlsr.testing.in_process import InProcessImageTarget
from libxlsr.testing.offline import restore_bytes
from libxlsr.testing.parts import Part, record_part
from libxlsr.testing.stepping import run_until

KINDS: list[dict[str, Any]] = [
    {"guest": "pv", "vcpus": 2, "batch": 5, "types": {3: 0xF, 4: 0x1}},
    {"guest": "pvh", "version": 2, "dirtied": [[1, 2]]},
    {"guest": "hvm", "xenstore": [("physmap/a0000/size", "20000")], "verify": True},
]
CHECKPOINTED: dict[str, Any] = {"checkpoints": [[1], [2], [3]], "pages": 6}
SEEDS = 100
"""For each kind."""

MEMORY_MAX = 64 << 20
"""Bytes that one damaged stream of 100 KB may make a restore allocate."""


def parts_of(kind: dict[str, Any]) -> list[Part]:
    return StreamBuilder(**kind).parts


def outcome_of(data: bytes, parent: Path, make: Any) -> str:
    """Restore ``data`` and look at everything; what came of it."""
    ctx = Context()
    fds = len(os.listdir("/proc/self/fd"))
    fd = os.memfd_create("damaged")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        ao = restore_ao(ctx, fd, RestoreOptions(to_eof=True), target=make(ctx, parent / "guest"))
        run_until(ctx, lambda: ao.done)
    finally:
        os.close(fd)
    assert ctx.registered() == []
    assert len(os.listdir("/proc/self/fd")) == fds
    try:
        ao.result()
    except LibxlsrError as error:
        assert os.listdir(parent) == []
        text = str(error)
        assert text.isprintable()
        assert "internal error" not in text
        return type(error).__name__
    assert os.listdir(parent) == ["guest"]
    return "restored"


@pytest.mark.parametrize("kind", range(len(KINDS)))
@pytest.mark.parametrize("share", range(4))
def test_seeded_damage(tmp_path_factory: pytest.TempPathFactory, kind: int, share: int) -> None:
    parts = parts_of(KINDS[kind])
    seen: dict[str, int] = {}
    for seed in range(share, SEEDS, 4):
        damaged = damage(parts, seed * len(KINDS) + kind)
        directory = tmp_path_factory.mktemp("damaged")
        tracemalloc.start()
        try:
            outcome = outcome_of(damaged.data, directory, InProcessImageTarget)
            _, peak = tracemalloc.get_traced_memory()
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {damaged.what}: {error!r}") from error
        finally:
            tracemalloc.stop()
        assert peak < MEMORY_MAX, f"seed {seed}: {damaged.what}: {peak} bytes"
        seen[outcome] = seen.get(outcome, 0) + 1
    assert seen["StreamError"] > SEEDS // 8


@pytest.mark.parametrize(
    "seed",
    [seed if seed < 15 else pytest.param(seed, marks=pytest.mark.slow) for seed in range(60)],
)
def test_seeded_damage_with_real_helpers_and_checkpoints(tmp_path: Path, seed: int) -> None:
    damaged = damage(parts_of(CHECKPOINTED), seed)
    outcome_of(damaged.data, tmp_path, ImageTarget)


# Records without number, and sizes without end, in libxc's part.


@pytest.mark.parametrize("body", [b"", b"\1"], ids=["empty", "tiny"])
def test_optional_records_of_libxc_without_number(tmp_path: Path, body: bytes) -> None:
    stream = StreamBuilder("pvh", pages=4)
    place = stream.find(LibxcRecordType.HVM_CONTEXT)
    at = stream.offset_of(place)
    data = stream.build()
    optional = record_part(0x80000007, body, layer="libxc")
    one = b"".join(optional.chunks())
    big = data[:at] + one * 10_000 + data[at:]
    limit, blocks = sys.getrecursionlimit(), sys.getallocatedblocks()
    sys.setrecursionlimit(200)
    try:
        result = restore_bytes(big, tmp_path / "guest", make=InProcessImageTarget)
    finally:
        sys.setrecursionlimit(limit)
    assert result.stream_bytes == len(big)
    assert sys.getallocatedblocks() - blocks < 1_000


def test_tiny_known_records_of_libxc_without_number(tmp_path: Path) -> None:
    """TSC_INFO may repeat: the last one counts. It is written each time, and flushed once."""
    stream = StreamBuilder("pvh", pages=4)
    place = stream.find(LibxcRecordType.X86_TSC_INFO)
    at = stream.offset_of(place)
    one = b"".join(place.chunks())
    data = stream.build()
    result = restore_bytes(data[:at] + one * 2_000 + data[at:], tmp_path / "guest")
    assert result.guest.records["X86_TSC_INFO"] == 2_001
