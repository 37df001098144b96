"""Verifies images by their names, many at once where that is wanted."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Union

from libxlsr.errors import LibxlsrError, TargetError
from libxlsr.source.path_or_fd import PathOrFd, described, opened
from libxlsr.tools.verify.verifier import Verified
from libxlsr.tools.verify.verifier import verify as verify_fd

Outcome = Union[Verified, LibxlsrError]
"""What came of one image; an error where it could not be looked at."""


def verify(
    source: PathOrFd, *, full: bool = False, digest: bool = False, expected: str = "auto"
) -> Verified:
    """Verify the image at ``source``, a path or an open fd; see `libxlsr.tools.verify.verifier`."""
    with opened(source) as fd:
        return verify_fd(fd, full=full, digest=digest, expected=expected)


def verify_many(
    sources: Sequence[PathOrFd],
    *,
    jobs: int = 1,
    full: bool = False,
    digest: bool = False,
    expected: str = "auto",
) -> Generator[tuple[PathOrFd, Outcome], None, None]:
    """Verify each image, ``jobs`` of them at a time; what came of each, in their order.

    Whatever ends it early, be it this process's death, ends the processes that verify. Raises
    TargetError where none can be started.
    """

    def outcome(source: PathOrFd) -> Outcome:
        try:
            return verify(source, full=full, digest=digest, expected=expected)
        except LibxlsrError as error:
            return error
        except (MemoryError, OSError) as error:
            return TargetError.from_unexpected(error)

    if jobs <= 1 or len(sources) <= 1:
        for source in sources:
            yield source, outcome(source)
        return
    # Only here, as it takes longer to import than a short image to verify.
    from libxlsr.tools.verify.forked_calls import forked_calls

    try:
        with closing(forked_calls(outcome, sources, jobs)) as outcomes:
            for source, found in zip(sources, outcomes):
                yield source, found or _no_verdict(source)
    except OSError as error:
        raise TargetError.from_oserror(error, "can't start a process that verifies") from error


def _no_verdict(source: PathOrFd) -> TargetError:
    return TargetError(f"the process that verified {described(source)} ended without a verdict")
