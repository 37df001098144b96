"""Limits of this process, lowered for a while."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


def file_size_limit(nbytes: int) -> AbstractContextManager[None]:
    """No file can be written beyond ``nbytes`` (EFBIG), by this process and those it starts.

    Where helpers are started, not less than 200,000: Python compiles what they import, and keeps
    it cut off where it doesn't fit.
    """
    return _lowered(resource.RLIMIT_FSIZE, nbytes)


def open_files_limit(number: int) -> AbstractContextManager[None]:
    """This process gets no new fd of ``number`` or more (EMFILE)."""
    return _lowered(resource.RLIMIT_NOFILE, number)


@contextmanager
def _lowered(which: int, limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(which)
    resource.setrlimit(which, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(which, (soft, hard))
