"""Tests that run inside dom0, with pytest there."""
