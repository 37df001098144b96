"""Whatever breaks a restore off, and wherever, everything is undone."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libxlsr.domain import destruction
from libxlsr.errors import Aborted, TargetError
from libxlsr.events import Ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.xen_target import XenTarget
from libxlsr.xen.xenctrl import Xenctrl
from libxlsr.xen.xenstore import Xenstore

from .guests import Guest, saved_guest
from .images import mapped
from .points import spread
from .restoring import aborted_while_finishing, interrupted, restore_file
from .tiny_guests import saved_tiny_pvh

pytestmark = pytest.mark.usefixtures("unchanged_host")

POINTS = 50
# The stream has ended, the domain has been introduced, its tty is waited for.
BEFORE_THE_TTY = range(4)


@pytest.fixture(scope="module")
def tiny_bytes(tiny_image: Path) -> bytes:
    return tiny_image.read_bytes()


@pytest.fixture
def saved(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """The PV guest, or the tiny PVH guest."""
    made = saved_guest("pv") if request.param == "pv" else saved_tiny_pvh()
    yield made
    made.destroy()


@pytest.mark.parametrize("point", spread(range(POINTS), set(range(0, POINTS, 7))))
def test_aborted(tiny_bytes: bytes, point: int) -> None:
    after = len(tiny_bytes) * point // POINTS
    ao = interrupted(tiny_bytes, after, lambda ao, _target: ao.abort())
    with pytest.raises(Aborted):
        ao.result()


def test_a_pv_guest_is_aborted_half_way(pv_image: Path) -> None:
    half = pv_image.stat().st_size // 2
    ao = interrupted(mapped(pv_image), half, lambda ao, _target: ao.abort())
    with pytest.raises(Aborted):
        ao.result()


@pytest.mark.parametrize(
    ("saved", "after"),
    spread(
        itertools.product(("pv", "pvh"), range(10)),
        {("pv", 1), ("pv", 4), *(("pvh", after) for after in range(6))},
    ),
    indirect=["saved"],
)
def test_aborted_while_it_finishes(saved: Guest, after: int) -> None:
    ao = aborted_while_finishing(saved.image, after)
    try:
        ao.result()
    except Aborted:
        return
    # The tty was there at once: the guest was let go before the abort was heard of.
    assert after not in BEFORE_THE_TTY


@pytest.mark.parametrize("point", spread(range(1, POINTS + 1), {1, 25, 50}))
def test_the_helper_is_killed(tiny_bytes: bytes, point: int) -> None:
    def kill(_ao: Ao[Any], target: XenTarget) -> None:
        assert target.helper_pid is not None
        os.kill(target.helper_pid, signal.SIGKILL)

    after = len(tiny_bytes) * point // (POINTS + 1)
    with pytest.raises(TargetError, match="killed by SIGKILL"):
        interrupted(tiny_bytes, after, kill).result()


def test_a_large_one_is_destroyed_in_a_child(
    tiny_bytes: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(destruction, "LARGE_DOMAIN", 1 << 20)
    # Its memory comes in one record; with half of that it would not be large.
    ao = interrupted(tiny_bytes, len(tiny_bytes) - 20, lambda ao, _target: ao.abort())
    with pytest.raises(Aborted):
        ao.result()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_too_little_memory(tiny_image: Path) -> None:
    huge = [("maxmem", "100000"), ("memory", "90000")]
    with pytest.raises(TargetError, match=r"needs \d+ KiB .* KiB are missing"):
        restore_file(tiny_image, RestoreOptions(overrides=huge))


def test_memory_that_runs_out_half_way(tiny_image: Path) -> None:
    # The domain may have less than the image holds: Xen refuses the rest in the middle.
    small = [("memory", "2")]
    with pytest.raises(TargetError, match="holds more memory than"):
        restore_file(tiny_image, RestoreOptions(overrides=small))


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Xenstore, "introduce_domain"),
        (Xenctrl, "domain_max_vcpus"),
        (Xenctrl, "domain_setmaxmem"),
        (Xenctrl, "evtchn_alloc_unbound"),
        (Xenctrl, "domain_set_tsc_info"),
        (Xenctrl, "domain_unpause"),
    ],
)
def test_a_call_fails(
    tiny_image: Path, owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise TargetError("made to fail", errno=errno.ENOMEM, call=name)

    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(TargetError, match="made to fail"):
        restore_file(tiny_image)


def test_the_disk_is_full(tiny_image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "replace", _no_space)
    with pytest.raises(TargetError) as caught:
        restore_file(tiny_image)
    assert caught.value.errno == errno.ENOSPC


def _no_space(path: Path, _target: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
