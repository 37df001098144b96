"""The conformance suite, run against the offline target and against the fake one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from libxlsr.events import Context
from libxlsr.restoring.image.target import ImageTarget
from libxlsr.restoring.target import Target
from libxlsr.testing.conformance import TargetConformance
from libxlsr.testing.fake_target import FakeTarget


class TestImageTarget(TargetConformance):
    directory: Path

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path

    def make(self, ctx: Context) -> Target:
        return ImageTarget(ctx, self.directory / "guest")

    def left_behind(self) -> list[str]:
        return os.listdir(self.directory)


class TestFakeTarget(TargetConformance):
    def make(self, ctx: Context) -> Target:
        return FakeTarget(ctx, held=())

    def left_behind(self) -> list[str]:
        return []

    # Blocking on the fd is what the fake one does, and nobody could abort that.
    test_abort_while_libxc_waits_for_bytes = None  # type: ignore[assignment]
