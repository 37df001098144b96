"""What the helper's child makes of libxenguest's failures; the rest is in tests/xenlab/in_dom0."""

from __future__ import annotations

import errno

import pytest

from libxlsr.domain.save_helper.worker import explained
from libxlsr.errors import StreamError, TargetError


def failed(last_log: str | None, number: int | None = None) -> TargetError:
    return TargetError(
        "libxenguest could not restore domain 7",
        errno=number,
        call="xc_domain_restore",
        last_log=last_log,
    )


@pytest.mark.parametrize("number", [None, errno.EIO])
def test_a_checkpointed_stream_has_another_way(number: int | None) -> None:
    said = "xc: Found checkpoint in non-checkpointed stream; xc: Restore failed"
    error = explained(failed(said, number))
    assert isinstance(error, TargetError)
    assert str(error) == (
        "checkpointed streams (Remus, COLO) can't be restored into a running domain; "
        "restore it offline (--target image), which takes the last whole checkpoint"
    )


def test_without_an_errno_it_is_the_bytes() -> None:
    error = explained(failed("xc: PAGE_DATA record truncated: length 4, min 8"))
    assert isinstance(error, StreamError)
    assert "PAGE_DATA record truncated" in str(error)
    assert "libxenguest refused the stream" in str(explained(failed(None)))


def test_more_memory_than_the_domain_may_have() -> None:
    full = failed("xc: Failed to populate physmap", errno.EBUSY)
    assert explained(full) is full
    assert "holds more memory than the configuration gives" in str(full)


def test_any_other_failure_is_passed_on() -> None:
    other = failed("xc: Failed to map guest pages", errno.ENOMEM)
    assert explained(other) is other
    assert other.remedy is None
