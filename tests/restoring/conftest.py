"""The example image, and one restore of it, for everything in this directory."""

from __future__ import annotations

import lzma

import pytest

from tests.paths import EXAMPLE


@pytest.fixture(scope="session")
def example() -> bytes:
    """A real image of an HVM guest, as ``xl save`` of Xen 4.17 wrote it."""
    return lzma.decompress(EXAMPLE.read_bytes())
