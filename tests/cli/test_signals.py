"""Waiting for an operation with Ctrl-C as an event."""

from __future__ import annotations

import errno
import os

import pytest

from libxlsr.cli.signals import run_abortable
from libxlsr.events import Context
from libxlsr.operations.restore import restore_ao
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.fake_target import FakeTarget
from libxlsr.testing.feeding import feed


def test_without_a_pipe_for_signals_all_is_undone(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pipe2(_flags: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with feed("file", StreamBuilder("hvm", pages=2).build()) as fd:
        ao = restore_ao(ctx, fd, FakeTarget(ctx))
        with monkeypatch.context() as patch:
            patch.setattr(os, "pipe2", pipe2)
            with pytest.raises(OSError, match="Too many open files"):
                run_abortable(ctx, ao)
    assert ao.done
