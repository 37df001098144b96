"""Real forks: what a test has to see in the child, and what unwinds there."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

PATIENCE = 60
"""Seconds after which a child that hangs is killed, which fails the test."""

UNWOUND = 7


def _end_in_time() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(PATIENCE)


def in_a_fork(check: Callable[[], object]) -> None:
    """Run ``check`` in a forked child; what it asserts has to hold."""
    pid = os.fork()
    if pid == 0:
        _end_in_time()
        try:
            check()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def fork_and_unwind() -> None:
    """Fork a child that leaves by SystemExit, up to `unwound_here`; wait for it."""
    pid = os.fork()
    if pid == 0:
        _end_in_time()
        raise SystemExit
    assert os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == UNWOUND


@contextmanager
def unwound_here(at_the_end: Callable[[], object] = lambda: None) -> Iterator[None]:
    """The end of a child of `fork_and_unwind`, which calls ``at_the_end`` before it exits."""
    here = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != here:
            try:
                assert isinstance(sys.exc_info()[1], SystemExit)
                at_the_end()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(UNWOUND)
