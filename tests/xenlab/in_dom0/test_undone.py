"""Whatever breaks a restore off, and wherever, everything is undone."""

from __future__ import annotations

import errno
import logging
import os
import signal
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

from .guests import Guest
from .points import each_guest_with, every_run_with, spread
from .restoring import aborted_while_finishing, interrupted, restore_file

pytestmark = pytest.mark.usefixtures("unchanged_host")

POINTS = 50
# The stream has ended, the domain has been introduced, its tty is waited for.
BEFORE_THE_TTY = range(4)


@pytest.fixture(scope="module")
def pv_bytes(pv_image: Path) -> bytes:
    return pv_image.read_bytes()


@pytest.mark.parametrize("point", spread(range(POINTS), {0, 25, 49}))
def test_aborted(pv_bytes: bytes, point: int) -> None:
    after = len(pv_bytes) * point // POINTS
    ao = interrupted(pv_bytes, after, lambda ao, _target: ao.abort())
    with pytest.raises(Aborted):
        ao.result()


@each_guest_with("after", range(10), {("pv", 1), ("pv", 4), ("pvh", 0), ("pvh", 3)})
def test_aborted_while_it_finishes(guest: Guest, after: int) -> None:
    ao = aborted_while_finishing(guest.image, after)
    try:
        ao.result()
    except Aborted:
        return
    # The tty was there at once: the guest was let go before the abort was heard of.
    assert after not in BEFORE_THE_TTY
    guest.wait_for_ticks(1)
    guest.destroy()


@pytest.mark.parametrize("point", spread(range(1, POINTS + 1), {25, 50}))
def test_the_helper_is_killed(pv_bytes: bytes, point: int) -> None:
    def kill(_ao: Ao[Any], target: XenTarget) -> None:
        assert target.helper_pid is not None
        os.kill(target.helper_pid, signal.SIGKILL)

    after = len(pv_bytes) * point // (POINTS + 1)
    with pytest.raises(TargetError, match="killed by SIGKILL"):
        interrupted(pv_bytes, after, kill).result()


def test_a_large_one_is_destroyed_in_a_child(
    pv_bytes: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(destruction, "LARGE_DOMAIN", 1 << 20)
    ao = interrupted(pv_bytes, len(pv_bytes) // 2, lambda ao, _target: ao.abort())
    with pytest.raises(Aborted):
        ao.result()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@every_run_with("pv")
def test_too_little_memory(guest: Guest) -> None:
    huge = [("maxmem", "100000"), ("memory", "90000")]
    with pytest.raises(TargetError, match=r"needs \d+ KiB .* KiB are missing"):
        restore_file(guest.image, RestoreOptions(overrides=huge))


@every_run_with("pvh")
def test_memory_that_runs_out_half_way(guest: Guest) -> None:
    # The domain may have less than the image holds: Xen refuses the rest in the middle.
    small = [("memory", "32")]
    with pytest.raises(TargetError, match="holds more memory than"):
        restore_file(guest.image, RestoreOptions(overrides=small))


@pytest.mark.parametrize(
    ("owner", "name"),
    spread(
        [
            (Xenstore, "introduce_domain"),
            (Xenctrl, "domain_max_vcpus"),
            (Xenctrl, "domain_setmaxmem"),
            (Xenctrl, "evtchn_alloc_unbound"),
            (Xenctrl, "domain_set_tsc_info"),
            (Xenctrl, "domain_unpause"),
        ],
        {
            (Xenstore, "introduce_domain"),
            (Xenctrl, "domain_max_vcpus"),
            (Xenctrl, "domain_unpause"),
        },
    ),
)
def test_a_call_fails(
    pv_image: Path, owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise TargetError("made to fail", errno=errno.ENOMEM, call=name)

    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(TargetError, match="made to fail"):
        restore_file(pv_image)


def test_the_disk_is_full(pv_image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "replace", _no_space)
    with pytest.raises(TargetError) as caught:
        restore_file(pv_image)
    assert caught.value.errno == errno.ENOSPC


def _no_space(path: Path, _target: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
