"""Looks into images: what is in one, and what differs between two."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from libxlsr.contents.collector import Collector
from libxlsr.contents.description import describe
from libxlsr.contents.difference import Difference, Side, difference
from libxlsr.errors import StreamError
from libxlsr.operations.source_fd import Source, opened
from libxlsr.verify.digest import GuestDigest
from libxlsr.verify.verifier import Verified, run_verification


def inspect(source: Source, *, full: bool = False) -> dict[str, Any]:
    """All that there is to say about the image at ``source``, as an object for JSON.

    A damaged image is described as far as it can be read; ``findings`` says what is wrong with it.
    ``full`` is as verify's. Raises StreamError for what is no image, and TargetError.
    """
    with opened(source) as fd:
        verified, contents = run_verification(fd, Collector, full=full)
    return describe(_needed(verified, contents, source), verified)


def diff(a: Source, b: Source) -> Difference:
    """What differs between the images at ``a`` and ``b``, both read whole.

    Raises StreamError for an image that is not whole: what is missing would look like a difference.
    """
    with closing(GuestDigest()) as one, closing(GuestDigest()) as other:
        return difference(_side(a, one), _side(b, other))


def _side(source: Source, digest: GuestDigest) -> Side:
    with opened(source) as fd:
        verified, contents = run_verification(fd, Collector, digest=digest)
    contents = _needed(verified, contents, source)
    if not verified.good:
        finding = next(one for one in verified.findings if one.severity.value == "error")
        raise StreamError(
            f"{finding.message} ({source})", offset=finding.offset, record=finding.record
        )
    return Side(contents, digest)


def _needed(verified: Verified, contents: Collector | None, source: Source) -> Collector:
    if contents is None:
        finding = verified.findings[0]
        raise StreamError(f"{finding.message} ({source})", offset=finding.offset)
    return contents
