"""Images of Xen 4.5 and older are verified, inspected and compared as what they become."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

import libxlsr
from libxlsr.errors import StreamError
from libxlsr.formats.page_types import XEN_DOMCTL_PFINFO_L1TAB, XEN_DOMCTL_PFINFO_XTAB
from libxlsr.testing.legacy import LegacyImage
from libxlsr.tools.convert.operation import convert
from libxlsr.tools.inspect.operation import diff, inspect
from libxlsr.tools.verify.operation import verify

from .verify_images import verify_through_pipe

TYPES = {3: XEN_DOMCTL_PFINFO_XTAB, 7: XEN_DOMCTL_PFINFO_L1TAB}
IMAGES: dict[str, dict[str, Any]] = {
    "PV": {"guest": "pv", "vcpus": [0, 2]},
    "PV, text, 32-bit": {"guest": "pv", "guest_width": 4, "width": 4, "xl_header": "text"},
    "PV, bare": {"guest": "pv", "types": TYPES, "xl_header": None},
    "HVM": {"guest": "hvm", "dirtied": [[1, 2], [2]]},
    "HVM, bare": {"guest": "hvm", "xl_header": None},
}


@pytest.fixture(params=list(IMAGES.values()), ids=list(IMAGES))
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "old"
    path.write_bytes(LegacyImage(**request.param).build())
    return path


def test_it_has_the_digest_of_what_it_becomes(old: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    convert(old, new)
    verified = verify(old, digest=True)
    assert verified.good
    assert verified.kind == "legacy"
    assert verified.full
    assert verified.size == old.stat().st_size
    assert verified.digest == verify(new, digest=True).digest is not None
    assert verified.frames == verify(new).frames
    assert "legacy-image" in {finding.id for finding in verified.findings}
    assert diff(old, new).same_state


def test_it_is_read_from_a_pipe_and_compressed_as_well(old: Path) -> None:
    wanted = verify(old, digest=True).digest
    data = old.read_bytes()
    for sent in (data, gzip.compress(data)):
        verified = verify_through_pipe(sent, digest=True)
        assert (verified.kind, verified.digest) == ("legacy", wanted)


def test_it_is_inspected(old: Path) -> None:
    description = inspect(old)
    assert description["image"]["kind"] == "legacy"
    assert description["image"]["good"]
    assert description["memory"]["frames"]


def test_each_cut_is_found_with_its_place(old: Path) -> None:
    data = old.read_bytes()
    for size in [*range(0, len(data), 997), *range(len(data) - 40, len(data))]:
        old.write_bytes(data[:size])
        verified = verify(old)
        (error,) = [one for one in verified.findings if one.severity.value == "error"]
        assert (error.id, error.offset) == ("truncated", size)


def test_what_follows_it_is_found(old: Path) -> None:
    size = old.stat().st_size
    old.write_bytes(old.read_bytes() + b"more")
    (error,) = [one for one in verify(old).findings if one.severity.value == "error"]
    assert (error.id, error.offset) == ("trailing-data", size)


@pytest.mark.parametrize("seed", range(12))
def test_what_can_not_be_restored_is_bad_and_the_other_way_round(
    seed: int, old: Path, tmp_path: Path
) -> None:
    data = bytearray(old.read_bytes())
    place = seed * 7919 % len(data)
    data[place] ^= 1 << seed % 8
    old.write_bytes(data)
    restored = True
    try:
        libxlsr.restore(old, target="image", output=tmp_path / "restored")
    except StreamError:
        restored = False
    assert verify(old).good is restored


def test_a_bare_image_of_a_32_bit_toolstack_s_hvm_guest_must_be_called_legacy(
    tmp_path: Path,
) -> None:
    path = tmp_path / "old"
    path.write_bytes(LegacyImage("hvm", width=4, xl_header=None).build())
    assert [one.id for one in verify(path).findings] == ["unrecognised"]
    assert verify(path, expected="legacy").good
    assert verify(path, expected="legacy").kind == "legacy"
