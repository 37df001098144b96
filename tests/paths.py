"""Where in the tree the tests find what is not theirs."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "hvm-ticker-xen4.17.save.xz"
"""The tiny guest of tests/xenlab/tiny_guest.py, as xl saved it on Xen 4.17."""
