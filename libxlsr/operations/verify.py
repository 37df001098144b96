"""Verifies images by their names, many at once where that is wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
) -> Iterator[tuple[Source, Outcome]]:
    """Verify each image, ``jobs`` of them at a time; what came of each, in their order."""
    if jobs <= 1 or len(sources) <= 1:
        for source in sources:
            yield source, _outcome(source, full, digest, expected)
        return
    # Only here, as they take longer to import than a short image to verify.
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    workers = min(jobs, len(sources))
    with ProcessPoolExecutor(workers, get_context("fork"), _become_worker) as pool:
        futures = [pool.submit(_outcome, source, full, digest, expected) for source in sources]
        for source, future in zip(sources, futures):
            try:
                yield source, future.result()
            except BrokenProcessPool:
                yield source, TargetError("the process that verified it was killed")


def _outcome(source: Source, full: bool, digest: bool, expected: str) -> Outcome:
    try:
        return verify(source, full=full, digest=digest, expected=expected)
    except LibxlsrError as error:
        return error


def _become_worker() -> None:
    import signal

    # Ctrl-C reaches the whole process group; the parent says what there is to say about it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
