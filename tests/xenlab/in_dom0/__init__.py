"""Tests that run inside dom0, with pytest there."""

GUEST_LOST = 20
"""pytest's exit code here when nothing failed but what lost its guest (conftest.py)."""
