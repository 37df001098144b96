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


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "Too many open files"),
        (KeyboardInterrupt("SIGTERM"), "SIGTERM"),
    ],
    ids=["no pipe", "a signal meanwhile"],
)
def test_where_signals_are_not_caught_all_is_undone(
    ctx: Context, monkeypatch: pytest.MonkeyPatch, raised: BaseException, said: str
) -> None:
    def pipe2(_flags: int) -> tuple[int, int]:
        raise raised

    with feed("file", StreamBuilder("hvm", pages=2).build()) as fd:
        ao = restore_ao(ctx, fd, FakeTarget(ctx))
        with monkeypatch.context() as patch:
            patch.setattr(os, "pipe2", pipe2)
            with pytest.raises(type(raised), match=said):
                run_abortable(ctx, ao)
    assert ao.done
