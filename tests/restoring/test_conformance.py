"""The conformance suite, run against the three targets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from libxlsr.events import Context
from libxlsr.restoring.image.target import ImageTarget
from libxlsr.restoring.target import Target
from libxlsr.restoring.xen_target import XenTarget
from libxlsr.testing.conformance import TargetConformance
from libxlsr.testing.fake_target import FakeTarget
from libxlsr.testing.fake_xen import FakeXenHost


class TestImageTarget(TargetConformance):
    directory: Path

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path

    def make(self, ctx: Context) -> Target:
        return ImageTarget(ctx, self.directory / "guest")

    def left_behind(self) -> list[str]:
        return os.listdir(self.directory)


class TestXenTarget(TargetConformance):
    """With the processes that a restore has: helper, device model and its keeper."""

    xen: FakeXenHost

    @pytest.fixture(autouse=True)
    def _xen(self) -> Iterator[None]:
        with FakeXenHost() as self.xen:
            yield

    def make(self, ctx: Context) -> Target:
        return XenTarget(ctx, host=self.xen)

    def left_behind(self) -> list[str]:
        return self.xen.left_behind()


class TestFakeTarget(TargetConformance):
    def make(self, ctx: Context) -> Target:
        return FakeTarget(ctx, held=())

    def left_behind(self) -> list[str]:
        return []

    # Blocking on the fd is what the fake one does, and nobody could abort that.
    test_abort_while_libxc_waits_for_bytes = None  # type: ignore[assignment]
