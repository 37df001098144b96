"""Looks into images: what is in one, and what differs between two."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from libxlsr.errors import StreamError, TargetError
from libxlsr.restoring.image.small_files import flush, write_file
from libxlsr.source.path_or_fd import PathOrFd, described, opened
from libxlsr.tools.inspect.collector import Collector
from libxlsr.tools.inspect.description import describe
from libxlsr.tools.inspect.difference import Difference, Side, difference
from libxlsr.tools.inspect.page import page
from libxlsr.tools.staged_file import StagedFile
from libxlsr.tools.verify.digest import GuestDigest
from libxlsr.tools.verify.verifier import Verified, run_verification

_WITHOUT_DIGEST = ("ends-at-checkpoint", "frames-untracked")
"""Findings, none of them errors, of images whose state is not known to the last byte."""


def inspect(source: PathOrFd, *, full: bool = False) -> dict[str, Any]:
    """All that there is to say about the image at ``source``, as an object for JSON.

    A damaged image is described as far as it can be read; ``findings`` says what is wrong with it.
    ``full`` is as verify's. Raises StreamError for what is no image, and TargetError.
    """
    with opened(source) as fd:
        verified, contents = run_verification(fd, Collector, full=full)
    return describe(_needed(verified, contents, source), verified)


def write_page(description: dict[str, Any], output: Path) -> None:
    """Write what `inspect` returned as an HTML page into the file ``output``.

    It must not exist; its owner alone can read it. Raises TargetError; then there is none.
    """
    staged = StagedFile(output)
    try:
        write_file(staged.path, page(description).encode())
        flush(staged.path)
        staged.publish()
    except OSError as error:
        raise TargetError.from_oserror(error, f"can't write {output}") from error
    finally:
        staged.discard()


def diff(a: PathOrFd, b: PathOrFd) -> Difference:
    """What differs between the images at ``a`` and ``b``, both read whole.

    Raises StreamError for an image that is not whole: what is missing would look like a difference.
    """
    with closing(GuestDigest()) as one, closing(GuestDigest()) as other:
        return difference(_side(a, one), _side(b, other))


def _side(source: PathOrFd, digest: GuestDigest) -> Side:
    with opened(source) as fd:
        verified, contents = run_verification(fd, Collector, digest=digest)
    contents = _needed(verified, contents, source)
    if not verified.good:
        finding = next(one for one in verified.findings if one.severity.value == "error")
        raise StreamError(
            f"{finding.message} ({described(source)})", offset=finding.offset, record=finding.record
        )
    if verified.digest is None:
        finding = next(one for one in verified.findings if one.id in _WITHOUT_DIGEST)
        raise StreamError(
            f"it can't be compared: {finding.message} ({described(source)})", offset=finding.offset
        )
    return Side(contents, digest)


def _needed(verified: Verified, contents: Collector | None, source: PathOrFd) -> Collector:
    if contents is None:
        finding = verified.findings[0]
        raise StreamError(f"{finding.message} ({described(source)})", offset=finding.offset)
    return contents
