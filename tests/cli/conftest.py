"""For the commands' tests that send signals."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture
def not_ignored() -> Iterator[None]:
    """A shell's background job ignores Ctrl-C, one of nohup SIGHUP, and so would what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before)
    signal.signal(signal.SIGHUP, hangup)
