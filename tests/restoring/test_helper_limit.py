"""Many restores at once: the queue for helpers is fair, can be left, and never blocks itself."""

from __future__ import annotations

import lzma
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from libxlsr.errors import Aborted, LibxlsrError, TargetError
from libxlsr.events import Ao, Context
from libxlsr.restoring.helper_limit import HelperLimit, Place
from libxlsr.restoring.image.target import ImageTarget
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import Phase, Progress, RestoreResult
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.clock import FakeClock
from libxlsr.testing.fake_target import FakeTarget
from libxlsr.testing.stepping import run_until

IMAGE = StreamBuilder("hvm", pages=4).build()


@pytest.fixture
def open_image(tmp_path: Path) -> Iterator[ExitStack]:
    """Closes what the test opens."""
    with ExitStack() as stack:
        yield stack


def opened(stack: ExitStack, path: Path, data: bytes = IMAGE) -> int:
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    stack.callback(os.close, fd)
    return fd


def test_the_default_is_one_for_each_cpu() -> None:
    assert HelperLimit().limit == len(os.sched_getaffinity(0))
    with pytest.raises(ValueError, match="nothing run"):
        HelperLimit(0)


def test_places_are_given_in_the_order_of_asking(ctx: Context) -> None:
    limit = HelperLimit(2)
    places = [Place(ctx, limit) for _ in range(6)]
    went: list[int] = []
    for number, place in enumerate(places):
        place.take(lambda number=number: went.append(number))  # type: ignore[misc]
    assert (went, limit.running, limit.waiting) == ([0, 1], 2, 4)
    places[3].give_back()  # leaves the queue
    places[1].give_back()
    assert went == [0, 1]  # never from inside the call that frees the place
    ctx.dispatch({})
    assert went == [0, 1, 2]
    places[0].give_back()
    places[4].give_back()  # its turn had come, and it gave up before it went
    ctx.dispatch({})
    assert went == [0, 1, 2, 5]
    for place in places:
        place.give_back()
        place.give_back()
    assert (limit.running, limit.waiting) == (0, 0)


def test_a_place_that_is_held_serves_again(ctx: Context) -> None:
    limit = HelperLimit(1)
    place = Place(ctx, limit)
    went: list[str] = []
    place.take(lambda: went.append("decompressor"))
    place.take(lambda: went.append("target"))
    assert went == ["decompressor", "target"]
    assert limit.running == 1
    place.give_back()


def test_compressed_restores_do_not_wait_for_each_other(
    ctx: Context, tmp_path: Path, open_image: ExitStack
) -> None:
    """Each needs two helpers, and there are places for fewer than that."""
    limit = HelperLimit(1)
    finished: list[int] = []
    aos = [
        restore_ao(
            ctx,
            opened(open_image, tmp_path / f"{number}.xz", lzma.compress(IMAGE)),
            RestoreOptions(limit=limit),
            target=ImageTarget(ctx, tmp_path / f"guest-{number}"),
            on_done=lambda ao, number=number: finished.append(number),  # type: ignore[misc]
        )
        for number in range(3)
    ]
    run_until(ctx, lambda: all(ao.done for ao in aos))
    assert [ao.result().guest.name for ao in aos] == ["guest"] * 3
    assert sorted(finished) == [0, 1, 2]
    assert (limit.running, limit.waiting) == (0, 0)


@pytest.mark.parametrize("data", [IMAGE, lzma.compress(IMAGE)], ids=["plain", "xz"])
def test_a_queued_restore_can_be_aborted(
    ctx: Context, tmp_path: Path, open_image: ExitStack, data: bytes
) -> None:
    limit = HelperLimit(1)
    first = FakeTarget(ctx, held={"restore_libxc"})
    targets = [first, FakeTarget(ctx), FakeTarget(ctx)]
    phases: list[Phase] = []

    def note(progress: Progress) -> None:
        phases.append(progress.phase)

    aos = [
        restore_ao(
            ctx, opened(open_image, tmp_path / "0"), RestoreOptions(limit=limit), target=first
        )
    ]
    run_until(ctx, lambda: first.busy)
    for number in (1, 2):
        fd = opened(open_image, tmp_path / str(number), data)
        told = note if number == 1 else None
        aos.append(
            restore_ao(
                ctx, fd, RestoreOptions(limit=limit), target=targets[number], on_progress=told
            )
        )
    run_until(ctx, lambda: limit.waiting == 2)
    assert phases == [Phase.QUEUED]
    assert targets[1].calls == []
    aos[1].abort()
    run_until(ctx, lambda: aos[1].done)
    assert targets[1].calls == ["rollback"]
    assert limit.waiting == 1
    aos[0].abort()
    run_until(ctx, lambda: all(ao.done for ao in aos))
    outcomes: list[LibxlsrError | None] = [_error(ao) for ao in aos]
    assert [type(outcome) for outcome in outcomes] == [Aborted, Aborted, type(None)]
    assert (limit.running, limit.waiting) == (0, 0)


@pytest.mark.parametrize("data", [IMAGE, lzma.compress(IMAGE)], ids=["plain", "xz"])
def test_the_time_in_the_queue_is_told_apart(
    fake_ctx: Context, clock: FakeClock, tmp_path: Path, open_image: ExitStack, data: bytes
) -> None:
    limit = HelperLimit(1)
    before = Place(fake_ctx, limit)
    before.take(lambda: None)
    told: list[Progress] = []
    fd = opened(open_image, tmp_path / "image", data)
    target = FakeTarget(fake_ctx)
    ao = restore_ao(
        fake_ctx, fd, RestoreOptions(limit=limit), target=target, on_progress=told.append
    )
    run_until(fake_ctx, lambda: limit.waiting == 1)
    clock.advance(3600)
    before.give_back()
    fake_ctx.dispatch({})
    clock.advance(2)
    run_until(fake_ctx, lambda: ao.done)
    assert ao.result().phases[Phase.QUEUED] == 3600
    assert [progress.queued for progress in told] == [0] + [3600] * (len(told) - 1)
    assert told[0].time_left is None
    assert told[-1].elapsed == 3602
    assert told[-1].rate == len(data) / 2


@pytest.mark.parametrize("call", ["prepare", "restore_libxc", "emulator_context", "finish"])
def test_a_failure_gives_the_place_back(
    ctx: Context, tmp_path: Path, open_image: ExitStack, call: str
) -> None:
    limit = HelperLimit(1)
    aos = [
        restore_ao(
            ctx,
            opened(open_image, tmp_path / str(number)),
            RestoreOptions(limit=limit),
            target=FakeTarget(ctx, errors={call: TargetError("no")}),
        )
        for number in range(3)
    ]
    run_until(ctx, lambda: all(ao.done for ao in aos))
    assert [str(_error(ao)) for ao in aos] == ["no"] * 3
    assert (limit.running, limit.waiting) == (0, 0)


def _error(ao: Ao[RestoreResult]) -> LibxlsrError | None:
    try:
        ao.result()
    except LibxlsrError as error:
        return error
    return None
