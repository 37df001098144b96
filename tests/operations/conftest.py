"""The example image, and one restore of it, for everything in this directory."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "hvm-ticker-xen4.17.save.xz"


@pytest.fixture(scope="session")
def example() -> bytes:
    """A real image of an HVM guest, as ``xl save`` of Xen 4.17 wrote it."""
    return lzma.decompress(EXAMPLE.read_bytes())
