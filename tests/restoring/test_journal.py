"""What a restore says of itself: throttled progress, and log records with their context."""

from __future__ import annotations

import logging
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from libxlsr.events import Context
from libxlsr.restoring.image.target import ImageTarget
from libxlsr.restoring.journal import PROGRESS_INTERVAL, Journal
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import Phase, Progress
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.clock import FakeClock
from libxlsr.testing.stepping import run_until

IMAGE = StreamBuilder("hvm", pages=4).build()


class ReadingOfNothing:
    position = 7
    libxl_records = 2


def journal_of_nothing(
    ctx: Context, on_progress: Callable[[Progress], object] = lambda progress: None
) -> Journal:
    with open(os.devnull, "rb") as nothing:
        journal = Journal(ctx, nothing.fileno(), "x", on_progress)
    journal.follow(ReadingOfNothing())
    return journal


def test_progress_within_a_phase_is_throttled(fake_ctx: Context, clock: FakeClock) -> None:
    said: list[Progress] = []
    journal = journal_of_nothing(fake_ctx, said.append)
    for number in range(1000):
        clock.advance(PROGRESS_INTERVAL / 100)
        journal.count({"frames": number})
    assert 10 <= len(said) <= 11
    assert [progress.frames for progress in said] == sorted({p.frames for p in said})
    journal.enter(Phase.MEMORY)
    journal.enter(Phase.RECORDS)
    assert [progress.phase for progress in said[-2:]] == [Phase.MEMORY, Phase.RECORDS]


def test_counters_never_go_back(fake_ctx: Context) -> None:
    journal = journal_of_nothing(fake_ctx)
    journal.count({"frames": 9})
    journal.count({"frames": 3, "bytes": 4, "unheard of": 1})
    assert journal.counters == {"bytes": 4, "frames": 9, "records": 0, "source_bytes": 0}


def test_phases_add_up(fake_ctx: Context, clock: FakeClock) -> None:
    journal = journal_of_nothing(fake_ctx)
    for phase in (Phase.MEMORY, Phase.RECORDS, Phase.MEMORY, Phase.FINISHING):
        clock.advance(2.0)
        journal.enter(phase)
    assert journal.phases == {Phase.OPENING: 2.0, Phase.MEMORY: 4.0, Phase.RECORDS: 2.0}
    assert journal.seconds == 8.0


def test_the_rate_leaves_out_the_queue(fake_ctx: Context, clock: FakeClock) -> None:
    said: list[Progress] = []
    journal = journal_of_nothing(fake_ctx, said.append)
    journal.enter(Phase.QUEUED)
    clock.advance(3600)
    journal.count({})  # told while it waits
    journal.enter(Phase.MEMORY)
    clock.advance(2)
    journal.enter(Phase.RECORDS)
    assert [progress.queued for progress in said] == [0, 3600, 3600, 3600]
    assert [progress.rate for progress in said] == [0, 0, 0, 7 / 2]


def test_nothing_is_left_to_say_in_the_queue() -> None:
    def progress(phase: Phase, queued: float) -> Progress:
        return Progress(phase, 100, 1000, 0, 0, queued + 10, queued)

    assert progress(Phase.QUEUED, 3600).time_left is None
    assert progress(Phase.MEMORY, 3600).time_left == 90


@pytest.mark.parametrize("data", [IMAGE, lzma.compress(IMAGE)], ids=["plain", "xz"])
def test_the_position_grows_up_to_the_inputs_size(
    ctx: Context, tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "guest.save"
    path.write_bytes(data)
    said: list[Progress] = []
    with open(path, "rb") as file:
        target = ImageTarget(ctx, tmp_path / "guest")
        ao = restore_ao(
            ctx, file.fileno(), RestoreOptions(to_eof=True), target=target, on_progress=said.append
        )
        run_until(ctx, lambda: ao.done)
    positions = [progress.position for progress in said]
    assert positions == sorted(positions)
    assert positions[-1] == len(data)
    assert {progress.total for progress in said} == {len(data)}
    assert said[-1].time_left == 0.0
    result = ao.result()
    assert said[-1].records == result.libxl_records + sum(result.guest.records.values())
    assert said[-1].frames == 4


def test_log_records_carry_stream_domain_and_offset(
    ctx: Context, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "guest.save"
    path.write_bytes(IMAGE)
    with caplog.at_level(logging.DEBUG, "libxlsr.restoring.journal"), open(path, "rb") as file:
        target = ImageTarget(ctx, tmp_path / "guest")
        ao = restore_ao(ctx, file.fileno(), RestoreOptions(name="incoming 7"), target=target)
        run_until(ctx, lambda: ao.done)
    first, last = caplog.records[0], caplog.records[-1]
    assert {record.__dict__["stream"] for record in caplog.records} == {"incoming 7"}
    assert first.getMessage().startswith("incoming 7: opening took")
    assert last.getMessage() == f"incoming 7: restored: {tmp_path / 'guest'}"
    assert last.__dict__["domain"] == "guest"
    assert last.__dict__["offset"] == len(IMAGE)


def test_a_failure_is_logged_with_its_place(
    ctx: Context, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "guest.save"
    path.write_bytes(IMAGE[:-3])
    with caplog.at_level(logging.INFO, "libxlsr.restoring.journal"), open(path, "rb") as file:
        ao = restore_ao(ctx, file.fileno(), target=ImageTarget(ctx, tmp_path / "guest"))
        run_until(ctx, lambda: ao.done)
    (record,) = caplog.records
    assert "failed: at offset" in record.getMessage()
    assert record.__dict__["offset"] == len(IMAGE) - 3
