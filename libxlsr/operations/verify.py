"""Verifies images by their names, many at once where that is wanted."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Union

from libxlsr.errors import LibxlsrError, TargetError
from libxlsr.operations.source_fd import Source, opened
from libxlsr.verify.verifier import Verified
from libxlsr.verify.verifier import verify as verify_fd

Outcome = Union[Verified, LibxlsrError]
"""What came of one image; an error where it could not be looked at."""


def verify(
    source: Source, *, full: bool = False, digest: bool = False, expected: str = "auto"
) -> Verified:
    """Verify the image at ``source``, a path or an open fd; see `libxlsr.verify.verifier`."""
    with opened(source) as fd:
        return verify_fd(fd, full=full, digest=digest, expected=expected)


def verify_many(
    sources: Sequence[Source],
    *,
    jobs: int = 1,
    full: bool = False,
    digest: bool = False,
    expected: str = "auto",
) -> Generator[tuple[Source, Outcome], None, None]:
    """Verify each image, ``jobs`` of them at a time; what came of each, in their order.

    Whatever ends it early, be it this process's death, ends the processes that verify.
    """
    if jobs <= 1 or len(sources) <= 1:
        for source in sources:
            yield source, _outcome(source, full, digest, expected)
        return
    # Only here, as they take longer to import than a short image to verify.
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    from libxlsr.operations.lifeline import Lifeline

    workers = min(jobs, len(sources))
    context = get_context("fork")
    with (
        closing(Lifeline()) as lifeline,
        ProcessPoolExecutor(workers, context, lifeline.hold) as pool,
    ):
        try:
            with lifeline.forking():
                futures = [pool.submit(_outcome, one, full, digest, expected) for one in sources]
            for source, future in zip(sources, futures):
                try:
                    yield source, future.result()
                except BrokenProcessPool:
                    yield source, TargetError("the process that verified it was killed")
        except BaseException:
            lifeline.cut()  # or the pool would wait until all is verified
            raise


def _outcome(source: Source, full: bool, digest: bool, expected: str) -> Outcome:
    try:
        return verify(source, full=full, digest=digest, expected=expected)
    except LibxlsrError as error:
        return error
