"""verify and Xen's verify-stream-v2 agree, but for what docs/verify.md lists.

Runs where Debian's xen-utils is: see xen_utils.py.
"""

from __future__ import annotations

import gzip
import lzma
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.damage import damage
from tests.paths import ROOT

from . import xen_utils
from .finding_cases import CASES
from .test_against_restore import STREAMS
from .verify_images import KINDS, verify_bytes

SCRIPT = xen_utils.script("verify-stream-v2")
DOCUMENT = ROOT / "docs" / "verify.md"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SCRIPT is None, reason="verify-stream-v2 (xen-utils) is not installed"),
]

#: Where only ours finds an error. Each is a row of the table in docs/verify.md.
OURS_ONLY = {
    "trailing-data",
    "wrong-format",
    "xl-header",
    "xl-config",
    "libxl-header",
    "libxl-order",
    "emulator-missing",
    "emulator-unexpected",
    "checkpoint-state",
    "guest-type",
    "libxc-order",
    "domain-incomplete",
    "record-too-large",
    "page-data",
    "frame-beyond-p2m",
    "frames-missing",
    "pte-beyond-p2m",
    "pv-info",
    "p2m-frames",
    "p2m-frame-unusable",
    "vcpu",
    "vcpu-unknown",
    "tsc-info",
    "hvm-context",
    "hvm-params",
    "cpu-policy",
}

#: What it says where only verify-stream-v2 refuses an image, and the row that says why.
THEIRS_ONLY = {
    "Data not NUL terminated": "| EMULATOR_XENSTORE_DATA |",
    "Unrecognised record type 0x8": "| optional records (bit 31 of the type) |",  # libxc's
    "Unrecognised record type 8": "| optional records (bit 31 of the type) |",  # libxl's
    "Length expected to be a multiple of 8": "| any checkpointed (Remus) stream |",
    "marker: Expected 0xffffffffffffffff, got 0x1000000000000000": (  # the old image's 16 frames
        "| an image of Xen 4.5 or older (`legacy-image`) |"
    ),
}


def verify_stream_v2(data: bytes, path: Path, kind: str | None = None) -> str | None:
    """What Xen's verifier says against an image of ``kind``, by default of what its first bytes
    are; None if it likes it."""
    path.write_bytes(data)
    assert SCRIPT is not None
    kind = kind or _kind_of(data)
    result = subprocess.run(
        [str(SCRIPT), "--in", str(path), "--format", kind],
        env=xen_utils.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if result.returncode == 0:
        return None
    return next(line for line in reversed(result.stderr.splitlines()) if "Error" in line)


def _kind_of(data: bytes) -> str:
    return "xl" if data.startswith(b"Xen") else "libxl" if data.startswith(b"Libxl") else "libxc"


def check(data: bytes, path: Path, what: str, **options: Any) -> None:
    ours = verify_bytes(data, **options)
    theirs = verify_stream_v2(data, path)
    if ours.good and theirs is not None:
        assert any(known in theirs for known in THEIRS_ONLY), (what, theirs)
    if not ours.good and theirs is None:
        errors = {finding.id for finding in ours.findings if finding.severity.value == "error"}
        assert errors <= OURS_ONLY, (what, errors)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_right_images(kind: dict[str, Any], tmp_path: Path) -> None:
    theirs = verify_stream_v2(StreamBuilder(**kind).build(), tmp_path / "image")
    assert (theirs is None) is ("checkpoints" not in kind)


@pytest.mark.parametrize(
    "compress",
    [gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=["gzip", "xz", "zstd"],
)
def test_compressed_images(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    data = compress(StreamBuilder().build())
    assert verify_bytes(data).good
    assert verify_stream_v2(data, tmp_path / "image", "xl") is not None
    table = DOCUMENT.read_text().partition("## Where Xen's verify-stream-v2 disagrees")[2]
    assert "| images compressed with gzip, xz or zstd | refuses | good |" in table


@pytest.mark.parametrize("finding_id", CASES)
def test_images_with_a_finding(finding_id: str, tmp_path: Path) -> None:
    for make, options in CASES[finding_id]:
        data = make()
        if data.startswith((b"Xen", b"Libxl", b"\xff")):
            check(data, tmp_path / "image", finding_id, **options)


@pytest.mark.parametrize("kind", STREAMS, ids=str)
def test_damaged_images(kind: dict[str, Any], tmp_path: Path) -> None:
    parts = StreamBuilder(**kind).parts
    for seed in range(100):
        damaged = damage(parts, seed)
        if damaged.data.startswith((b"Xen", b"Libxl")):
            check(damaged.data, tmp_path / "image", damaged.what, full=True)


def test_the_document_has_a_row_for_each_disagreement() -> None:
    table = DOCUMENT.read_text().partition("## Where Xen's verify-stream-v2 disagrees")[2]
    assert not [name for name in OURS_ONLY if f"`{name}`" not in table]
    assert not [row for row in THEIRS_ONLY.values() if row not in table]
