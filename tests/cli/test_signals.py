"""Waiting for an operation with Ctrl-C as an event."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from libxlsr.cli.signals import run_abortable
from libxlsr.errors import Aborted, TargetError
from libxlsr.events import Ao, Context
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.progress import RestoreResult
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.fake_target import FakeTarget
from libxlsr.testing.feeding import feed


def test_where_signals_can_not_be_caught_nothing_begins(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pipe2(_flags: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def begin() -> Ao[None]:
        pytest.fail("it began")

    monkeypatch.setattr(os, "pipe2", pipe2)
    with pytest.raises(TargetError, match="pipe failed: Too many open files"):
        run_abortable(ctx, begin)


def test_a_signal_as_it_begins_aborts_it(ctx: Context) -> None:
    target = FakeTarget(ctx)

    def begin() -> Ao[RestoreResult]:
        signal.raise_signal(signal.SIGTERM)
        return restore_ao(ctx, fd, target=target)

    with (
        feed("file", StreamBuilder("hvm", pages=2).build()) as fd,
        pytest.raises(Aborted, match="aborted by SIGTERM"),
    ):
        run_abortable(ctx, begin)
