"""However a stream arrives, the same guest comes of it, and the fd stands right behind END."""

from __future__ import annotations

import errno
import gzip
import lzma
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libxlsr.errors import TargetError
from libxlsr.events import Context
from libxlsr.restoring.image.target import ImageTarget
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import RestoreResult
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.feeding import HIGH_FD, WAYS, feed
from libxlsr.testing.pages import stamped_page
from libxlsr.testing.parts import IMAGE_HEADER, join
from libxlsr.testing.stepping import run_until
from libxlsr.testing.trees import tree

TRAILER = b"the handshake of xl migrate"

STREAMS: dict[str, dict[str, Any]] = {
    "pv": {"guest": "pv", "vcpus": 2, "pages": 24},
    "pv v2": {"guest": "pv", "version": 2},
    "pv 32-bit": {"guest": "pv", "guest_width": 4},
    "pvh": {"guest": "pvh"},
    "pvh v2": {"guest": "pvh", "version": 2},
    "hvm": {"guest": "hvm", "xenstore": [("physmap/a0000/size", "20000")]},
    "hvm v2": {"guest": "hvm", "version": 2},
    "live": {"dirtied": [[1, 2, 3], [2, 15]], "batch": 4, "types": {5: 0xF, 6: 0xE}},
    "verified": {"dirtied": [[0]], "verify": True},
    "checkpointed": {"checkpoints": [[3, 4], [5], []], "xenstore": [("physmap/a/name", "vga")]},
    "pv checkpointed": {"guest": "pv", "checkpoints": [[1], [2]]},
    "bare libxl": {"xl_header": False},
}

Outcome = tuple[dict[str, Any], dict[str, tuple[int, int, str]]]


def restore(fd: int, output: Path, **options: Any) -> RestoreResult:
    """Restore offline from ``fd`` and clean up nothing: what is left is looked at."""
    ctx = Context()
    ao = restore_ao(ctx, fd, RestoreOptions(**options), target=ImageTarget(ctx, output))
    run_until(ctx, lambda: ao.done)
    assert ctx.registered() == []
    return ao.result()


def outcome(result: RestoreResult, output: Path) -> Outcome:
    """What can be compared of a restore: all but times and the output's name."""
    said = {
        name: value
        for name, value in vars(result).items()
        if name not in ("guest", "seconds", "phases", "compression")
    }
    said["guest"] = {name: v for name, v in vars(result.guest).items() if name != "where"}
    return said, tree(output)


def rest_of(fd: int) -> bytes:
    """What nobody has read."""
    rest = bytearray()
    while True:
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            continue
        if not data:
            return bytes(rest)
        rest += data


def feed_and_restore(
    way: str, data: bytes, output: Path, *, sizes: Iterable[int] = (65536,)
) -> Outcome:
    """Restore ``data`` from an fd of the kind ``way``, and look at how the fd is left."""
    with feed(way, data + TRAILER, sizes=sizes) as fd:
        assert way != "high fd" or fd >= HIGH_FD > 1024
        blocking = os.get_blocking(fd)
        assert blocking is not way.startswith("nonblocking")
        result = restore(fd, output)
        assert os.get_blocking(fd) is blocking
        assert rest_of(fd) == TRAILER
    assert result.stream_bytes == len(data)
    return outcome(result, output)


def bare_libxc() -> bytes:
    """A libxc image without anything round it."""
    stream = StreamBuilder("pvh")
    first = stream.parts.index(stream.find_header(IMAGE_HEADER))
    return join(stream.parts[first:-1])


def stream_called(name: str) -> bytes:
    return bare_libxc() if name == "bare libxc" else StreamBuilder(**STREAMS[name]).build()


@pytest.mark.parametrize("name", [*STREAMS, "bare libxc"])
def test_whole_byte_by_byte_and_in_pieces(name: str, tmp_path: Path) -> None:
    data = stream_called(name)
    whole = feed_and_restore("file", data, tmp_path / "whole")
    assert feed_and_restore("bytes", data, tmp_path / "bytes") == whole
    pieces = [7, 1, 8, 4096, 3, 65536, 13]
    assert feed_and_restore("pieces", data, tmp_path / "pieces", sizes=pieces) == whole


@pytest.mark.parametrize("name", ["hvm", "pv", "checkpointed", "bare libxc"])
def test_every_kind_of_fd(name: str, tmp_path: Path) -> None:
    data = stream_called(name)
    whole = feed_and_restore("file", data, tmp_path / "whole")
    for way in WAYS[1:]:
        if way not in ("bytes", "pieces"):  # they are the test's before this one, for each stream
            assert feed_and_restore(way, data, tmp_path / way, sizes=[4096, 100]) == whole, way


_SMALL: dict[str, tuple[bytes, Outcome]] = {}


def small(name: str, directory: Path) -> tuple[bytes, Outcome]:
    """A stream of few pages, and what comes of it in one piece; restored once."""
    if name not in _SMALL:
        data = StreamBuilder(**{**STREAMS[name], "pages": 6}).build()
        _SMALL[name] = data, feed_and_restore("file", data, directory / "whole")
    return _SMALL[name]


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(["hvm", "pv", "checkpointed", "bare libxl"]),
    sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=20),
)
def test_random_pieces(
    name: str, sizes: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("pieces")
    data, whole = small(name, directory)
    assert feed_and_restore("pieces", data, directory / "pieces", sizes=sizes) == whole


@pytest.mark.parametrize("name", list(STREAMS))
def test_memory_holds_what_was_sent_last(name: str, tmp_path: Path) -> None:
    stream = StreamBuilder(**STREAMS[name])
    with feed("file", stream.build()) as fd:
        restore(fd, tmp_path / "guest", to_eof=True)
    memory = (tmp_path / "guest" / "memory").read_bytes()
    types = STREAMS[name].get("types", {})
    for gfn in range(stream.pages):
        expected = bytes(4096) if gfn in types else stream.page(gfn)
        assert memory[gfn * 4096 : (gfn + 1) * 4096] == expected
    assert len(memory) == stream.pages * 4096


def test_checkpoints_are_counted_and_applied(tmp_path: Path) -> None:
    stream = StreamBuilder(checkpoints=[[1], [2], [2]])
    with feed("pipe", stream.build()) as fd:
        result = restore(fd, tmp_path / "guest")
    assert result.checkpoints == 3
    assert result.failover is None
    with open(tmp_path / "guest" / "memory", "rb") as memory:
        memory.seek(2 * 4096)
        assert memory.read(4096) == stamped_page(2, 3)


# The real image.


def ticker(output: Path) -> int:
    """The word that the guest of the example counts up."""
    with open(output / "memory", "rb") as memory:
        memory.seek(0x101000)
        return int.from_bytes(memory.read(4), "little")


def test_the_example_in_every_way(example: bytes, tmp_path: Path) -> None:
    whole = feed_and_restore("file", example, tmp_path / "whole")
    assert ticker(tmp_path / "whole") == 19
    for way in WAYS[1:6]:
        again = feed_and_restore(way, example, tmp_path / way, sizes=[100_000, 1, 7, 4096])
        assert again == whole


def test_the_example_byte_by_byte_at_both_ends(example: bytes, tmp_path: Path) -> None:
    """11 MB of single bytes take minutes; where records are small, they are what matters."""
    whole = feed_and_restore("file", example, tmp_path / "whole")
    sizes = [1] * 4096 + [65536] * (len(example) // 65536 - 1) + [1] * 65536 * 2
    assert feed_and_restore("pieces", example, tmp_path / "bytes", sizes=sizes) == whole


@pytest.mark.slow
def test_the_example_byte_by_byte(example: bytes, tmp_path: Path) -> None:
    whole = feed_and_restore("file", example, tmp_path / "whole")
    assert feed_and_restore("bytes", example, tmp_path / "bytes") == whole


def _zstd(data: bytes) -> bytes:
    return bytes(pytest.importorskip("zstandard").compress(data))


CODECS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": _zstd,
}


@pytest.mark.parametrize("codec", ["gzip", "xz", "zstd"])
def test_compressed(codec: str, tmp_path: Path) -> None:
    data = stream_called("hvm")
    with feed("file", data) as fd:
        whole = outcome(restore(fd, tmp_path / "whole", to_eof=True), tmp_path / "whole")
    for way in ("file", "pipe", "nonblocking pipe", "socket", "bytes"):
        with feed(way, CODECS[codec](data), sizes=[100, 1, 3000]) as fd:
            blocking = os.get_blocking(fd)
            result = restore(fd, tmp_path / way)
            assert os.get_blocking(fd) is blocking, way
        assert result.compression == codec, way
        assert outcome(result, tmp_path / way) == whole, way


def test_compressed_in_two_members(tmp_path: Path) -> None:
    data = stream_called("pv")
    for name, codec in CODECS.items():
        both = codec(data[:1000]) + codec(data[1000:])
        with feed("file", both) as fd:
            assert restore(fd, tmp_path / name).stream_bytes == len(data)


def test_an_offset_into_the_file_is_where_the_image_begins(tmp_path: Path) -> None:
    data = stream_called("pvh")
    with feed("file", b"something else" + data) as fd:
        os.lseek(fd, 14, os.SEEK_SET)
        assert restore(fd, tmp_path / "guest", to_eof=True).stream_bytes == len(data)


def test_an_fd_that_takes_no_reads(tmp_path: Path) -> None:
    with open(os.devnull, "wb") as sink, pytest.raises(TargetError) as caught:
        restore(sink.fileno(), tmp_path / "guest")
    assert caught.value.errno == errno.EBADF
    assert os.listdir(tmp_path) == []
