"""What an offline restore refuses, verify refuses, and the other way round; no damage makes verify
fall over."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import libxlsr
from libxlsr.errors import LibxlsrError, StreamError, TargetError
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.damage import damage
from libxlsr.tools.verify.findings import RULES, Severity
from libxlsr.tools.verify.verifier import Verified

from .finding_cases import CASES
from .verify_images import verify_bytes

STREAMS: list[dict[str, Any]] = [
    {"xenstore": [("physmap/a0000/size", "20000")]},
    {"guest": "pvh", "vcpus": 2, "dirtied": [[1, 2]], "batch": 5},
    {"guest": "pv", "vcpus": 2, "types": {3: 0xF}, "batch": 5},
    {"checkpoints": [[3, 4], [1]]},
]
SEEDS_EACH = 75


def is_error(finding_id: str) -> bool:
    return RULES[finding_id].severity is Severity.ERROR


def refused(data: bytes, directory: Path) -> LibxlsrError | None:
    """What an offline restore says against an image; None if it restores the guest.

    It may be a TargetError: a damaged frame number can lie beyond what a file system can hold.
    """
    path = directory / "image"
    path.write_bytes(data)
    output = directory / "guest"
    try:
        libxlsr.restore(path, target="image", output=output)
    except (StreamError, TargetError) as error:
        return error
    finally:
        shutil.rmtree(output, ignore_errors=True)
    return None


@pytest.mark.slow
@pytest.mark.parametrize("kind", STREAMS, ids=str)
def test_verify_refuses_whatever_restore_refuses(kind: dict[str, Any], tmp_path: Path) -> None:
    parts = StreamBuilder(**kind).parts
    for seed in range(SEEDS_EACH):
        damaged = damage(parts, seed)
        error = refused(damaged.data, tmp_path)
        verified = verify_bytes(damaged.data)
        if error is not None:
            assert not verified.good, f"seed {seed}: {damaged.what}: {error}"


@pytest.mark.parametrize("finding_id", [one for one in CASES if is_error(one)])
def test_restore_refuses_what_verify_calls_an_error(finding_id: str, tmp_path: Path) -> None:
    for make, options in CASES[finding_id]:
        if "expected" not in options:  # which restore is not asked for
            error = refused(make(), tmp_path)
            assert error is not None
            assert error.message


@pytest.mark.parametrize("kind", STREAMS, ids=str)
def test_structural_and_full_say_the_same(kind: dict[str, Any]) -> None:
    parts = StreamBuilder(**kind).parts
    for seed in range(100):
        data = damage(parts, seed).data
        structural, full = verify_bytes(data), verify_bytes(data, full=True)
        assert outcome(structural) == outcome(full), damage(parts, seed).what


def outcome(verified: Verified) -> object:
    return verified.findings, verified.frames, verified.size


@pytest.mark.parametrize("kind", STREAMS, ids=str)
def test_each_truncation_is_an_error(kind: dict[str, Any]) -> None:
    data = StreamBuilder(**kind).build()
    whole = verify_bytes(data)
    assert whole.good
    for size in [*range(0, len(data), 211), *range(len(data) - 100, len(data))]:
        try:
            verified = verify_bytes(data[:size])
        except LibxlsrError as error:
            pytest.fail(f"cut after {size} bytes: {error}")
        cut = {"truncated", "unrecognised", "ends-at-checkpoint"}
        assert {finding.id for finding in verified.findings} & cut
