"""A real domain comes back."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from libxlsr.domain.host import XenHost
from libxlsr.domain.save_helper.spare import SpareHelper
from libxlsr.errors import StreamError, TargetError
from libxlsr.events import Context, run
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import Phase, Progress
from libxlsr.restoring.xen_target import XenTarget

from .dom0 import domid_of, xenctrl, xenstore
from .guests import GUEST, Guest, saved_guest, xl
from .images import write_changed
from .restoring import loop, restore, restore_file
from .state import HostState
from .tiny_guests import MEMORY, TinyGuest, saved_tiny_pvh
from .twins import look_at

ROUNDS = 10
MIB = 1 << 20
LACKING = 24
DOM0_TARGET = "/local/domain/0/memory/target"

# Another process, as a migration's sender is, that delivers slowly: the headers in pieces,
# then chunks that no record's size is a multiple of, with a pause now and then.
SENDER = """\
import sys, time
with open(sys.argv[1], "rb") as image, open(1, "wb", buffering=0) as pipe:
    for number in range(10):
        pipe.write(image.read(7))
        time.sleep(0.05)
    number = 0
    while chunk := image.read(7_777):
        pipe.write(chunk)
        number += 1
        if number % 100 == 0:
            time.sleep(0.1)
    time.sleep(0.2)
    pipe.write(b"the handshake")
"""


def test_the_guest_goes_on(guest: Guest) -> None:
    ticks = len(guest.ticks())
    result = restore_file(guest.image)
    assert (result.guest.name, result.guest.domain_type) == (guest.name, guest.kind)
    assert domid_of(guest.name) == result.guest.domid
    guest.check_goes_on_after(ticks)


def test_paused_and_under_another_name(tiny: TinyGuest) -> None:
    other = TinyGuest(tiny.kind, f"{tiny.name}-other", tiny.image)
    changes = [("name", other.name), ("uuid", "new")]
    result = restore_file(tiny.image, RestoreOptions(overrides=changes, paused=True))
    try:
        assert (result.guest.domid, result.guest.name) == (other.domid, other.name)
        info = xenctrl().domain_info(other.domid)
        assert info is not None
        assert info.paused
        assert info.cpu_time_ns == 0
    finally:
        other.destroy()


def test_from_a_slow_pipe_in_odd_chunks(tiny: TinyGuest) -> None:
    with subprocess.Popen(
        [sys.executable, "-ISc", SENDER, str(tiny.image)], stdout=subprocess.PIPE
    ) as sender:
        assert sender.stdout is not None
        restore(sender.stdout.fileno(), to_eof=False)
        # The fd stands at END's end, to the byte.
        assert os.read(sender.stdout.fileno(), 100) == b"the handshake"
    tiny.wait_until_it_goes_on()


def test_two_at_once_on_one_loop() -> None:
    linux, tiny = guests = saved_guest("pv"), saved_tiny_pvh()
    fds = [os.open(guest.image, os.O_RDONLY) for guest in guests]
    phases: list[Phase | None] = [None, None]
    together = set()

    def follow(number: int) -> Callable[[Progress], None]:
        def note(progress: Progress) -> None:
            phases[number] = progress.phase
            together.add(tuple(phases))

        return note

    try:
        aos = [
            loop().start(fd, RestoreOptions(to_eof=True), follow(number))[0]
            for number, fd in enumerate(fds)
        ]
        loop().run(*aos)
        assert [ao.result().guest.name for ao in aos] == [guest.name for guest in guests]
        # Both were read at the same time, not one after the other.
        assert (Phase.MEMORY, Phase.MEMORY) in together
        assert linux.wait_for_ticks(1)[0][1] == linux.saved_tick[1]
        tiny.wait_until_it_goes_on()
    finally:
        for fd, guest in zip(fds, guests):
            os.close(fd)
            guest.destroy()


@pytest.mark.parametrize("uuid", ["same", "new"])
def test_of_two_of_one_image_one_is_refused_and_the_other_is_whole(
    tiny: TinyGuest, uuid: str
) -> None:
    changes = [("uuid", "new")] if uuid == "new" else []
    before = HostState.now()
    restore_file(tiny.image, RestoreOptions(paused=True))
    alone = look_at(tiny)
    tiny.destroy()
    fds = [os.open(tiny.image, os.O_RDONLY) for _ in range(2)]
    try:
        aos = [
            loop().start(fd, RestoreOptions(overrides=own, paused=True))[0]
            for fd, own in zip(fds, ([], changes))
        ]
        loop().run(*aos)
        refused = []
        for ao in aos:
            try:
                ao.result()
            except TargetError as error:
                refused.append(str(error))
        (message,) = refused
        assert re.search("domain [0-9]+ has the (name|UUID)", message)
        # Of the one that was refused nothing is left, of the other all: xl lists its userdata.
        after = look_at(tiny)
        assert alone.unlisted_differences(after) == {}
        if not changes:
            assert after.listed == alone.listed
    finally:
        for fd in fds:
            os.close(fd)
        tiny.destroy()
    assert HostState.now() == before


def test_a_spare_helper_is_taken_and_replaced(tiny: TinyGuest) -> None:
    ctx = Context()
    with SpareHelper(ctx) as spare:
        for _ in range(2):
            pid = spare.pid
            assert _helpers_of_restore(ctx, spare, tiny.image) == {pid}
            run(ctx, lambda: spare.pid is not None)
            assert spare.pid != pid
            tiny.destroy()
    assert ctx.registered() == []


def _helpers_of_restore(ctx: Context, spare: SpareHelper, path: Path) -> set[int]:
    """The process ids of the helpers that were seen to run in a restore."""
    target = XenTarget(ctx, RestoreOptions(spare_helper=spare))
    seen = set()

    def look(_progress: Progress) -> None:
        if target.helper_pid is not None:
            seen.add(target.helper_pid)

    with path.open("rb") as image:
        ao = restore_ao(ctx, image.fileno(), target=target, on_progress=look)
        run(ctx, lambda: ao.done)
    ao.result()
    return seen


@pytest.mark.slow
def test_ten_rounds_of_save_and_restore(guest: Guest) -> None:
    digest = guest.ticks()[-1][1]
    image = guest.image
    for number in range(ROUNDS):
        restore_file(image)
        assert {after for _, after in guest.wait_for_ticks(1)} == {digest}
        image = guest.image.with_name(f"round-{guest.kind}-{number % 2}")
        xl("save", guest.name, str(image))
    image.unlink()
    image.with_name(f"round-{guest.kind}-{ROUNDS % 2}").unlink()


@pytest.mark.usefixtures("unchanged_host")
def test_a_name_or_uuid_that_is_taken(tiny: TinyGuest) -> None:
    result = restore_file(tiny.image, RestoreOptions(paused=True))
    try:
        for taken, other in (("name", ("uuid", "new")), ("uuid", ("name", "lab-other"))):
            says = f"(?i)domain {result.guest.domid} has the {taken}"
            with pytest.raises(TargetError, match=says):
                restore_file(tiny.image, RestoreOptions(overrides=[other]))
    finally:
        tiny.destroy()


@pytest.fixture
def dom0_memory(tmp_path: Path) -> Iterator[int]:
    """MiB that dom0 has, on a host that has ``LACKING`` MiB too few for the tiny guest."""
    dom0 = xenctrl().domain_info(0)
    free = xenctrl().physinfo().allocatable_bytes // MIB
    assert dom0 is not None
    before = dom0.total_bytes // MIB
    filling = Guest("pvh", "lab-filling", tmp_path / "none")
    config = tmp_path / "filling.cfg"
    # Its paging pool is 1 MiB and 8 KiB a MiB (libxl_get_required_shadow_memory, libxl_utils.c).
    memory = (free - MEMORY + LACKING - 1) * 128 // 129
    config.write_text(GUEST.format(name=filling.name, kind=filling.kind, memory=memory))
    xl("create", "-q", "-p", str(config))
    try:
        yield before
    finally:
        filling.destroy()
        xl("mem-set", "0", f"{before}m")


def test_dom0_gives_up_memory_when_asked_and_gets_it_back_when_the_restore_fails(
    tiny: TinyGuest, dom0_memory: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "libxlsr")
    with pytest.raises(TargetError, match="KiB are missing"):
        restore_file(tiny.image)

    xl("mem-set", "0", f"{dom0_memory}m")
    before = xenstore().read(DOM0_TARGET)
    cut = tmp_path / "cut.save"
    write_changed(tiny.image, cut, lambda image: image.upto(100_000))
    with pytest.raises(StreamError):
        restore_file(cut, RestoreOptions(balloon=True))
    assert f"dom0's memory target goes from {before} to " in caplog.text
    assert xenstore().read(DOM0_TARGET) == before

    restore_file(tiny.image, RestoreOptions(balloon=True))
    tiny.wait_until_it_goes_on()
    dom0 = xenctrl().domain_info(0)
    assert dom0 is not None
    assert dom0.total_bytes // MIB < dom0_memory
    tiny.destroy()


def test_it_waits_while_xl_makes_a_domain(tiny: TinyGuest) -> None:
    domids: list[int | None] = []
    ctx = loop().ctx
    fd = os.open(tiny.image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with XenHost().lock_file.open("w") as held:
            fcntl.lockf(held, fcntl.LOCK_EX)  # as xl does

            def let_go() -> None:
                domids.append(target.domid)
                fcntl.lockf(held, fcntl.LOCK_UN)

            ctx.call_later(2, let_go)
            ao, target = loop().start(fd, RestoreOptions(balloon=True))
            loop().run(ao)
    finally:
        os.close(fd)
    assert domids == [None]
    assert ao.result().guest.domid == target.domid
