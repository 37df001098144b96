"""The conformance suite for targets: the rules of `libxlsr.restoring.target`, as pytest runs them.

A target passes by a subclass that says how to make one and what it leaves behind::

    class TestMyTarget(TargetConformance):
        def make(self, ctx): return MyTarget(ctx, ...)
        def left_behind(self): return [...]
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from libxlsr.errors import Aborted, LibxlsrError, StreamError
from libxlsr.events import Context
from libxlsr.formats import libxl, xl
from libxlsr.formats.libxc import RecordType as LibxcRecordType
from libxlsr.restoring.target import (
    CheckpointDone,
    ImageDescription,
    LibxcOutcome,
    Restored,
    Target,
)
from libxlsr.restoring.timeouts import Timeouts
from libxlsr.stream.libxc_stream import LibxcStream
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.parts import IMAGE_HEADER, XL_HEADER, XL_OPTIONAL_DATA, join
from libxlsr.testing.stepping import run_until

TRAILER = b"not libxc's, and not the target's"


class Hooks:
    """`libxlsr.restoring.target.TargetHooks` that note what they are told."""

    timeouts = Timeouts()

    def __init__(self) -> None:
        self.counters: list[Mapping[str, int]] = []

    def progress(self, counters: Mapping[str, int]) -> None:
        """Note them."""
        self.counters.append(dict(counters))

    def log(self, level: int, text: str) -> None:
        """Let it be."""

    def checkpoint(self, consumed: int, done: CheckpointDone) -> None:
        """The suite's streams have none."""
        raise AssertionError("a checkpoint in a stream without one")


class Driver:
    """Calls one target as a restore does, and asserts its rules at each call."""

    def __init__(self, ctx: Context, target: Target, stream: StreamBuilder) -> None:
        self.ctx = ctx
        self.target = target
        self.stream = stream
        self.hooks = Hooks()

    def begin(self, name: str, *args: Any) -> list[tuple[Any, ...]]:
        """Make one call; the list gets what *done* is called with."""
        answers: list[tuple[Any, ...]] = []
        inside = True

        def done(*answer: Any) -> None:
            assert not inside, f"{name} called done from inside itself"
            assert not answers, f"{name} called done twice"
            answers.append(answer)

        getattr(self.target, name)(*args, done)
        inside = False
        return answers

    def end(self, answers: list[tuple[Any, ...]]) -> tuple[Any, ...]:
        """Run the loop until *done* has been called."""
        run_until(self.ctx, lambda: bool(answers))
        return answers[0]

    def call(self, name: str, *args: Any) -> tuple[Any, ...]:
        """One whole call."""
        return self.end(self.begin(name, *args))

    def prepare(self) -> LibxlsrError | None:
        """``prepare`` with the configuration of the stream, where it has one."""
        header = self.stream.find_header(XL_HEADER)
        data = self.stream.find_header(XL_OPTIONAL_DATA).body_bytes()
        config = xl.decode_optional_data(xl.Header.decode(header.body_bytes()), data)
        (error,) = self.call("prepare", ImageDescription(config, libxl.Header()), self.hooks)
        assert error is None or isinstance(error, LibxlsrError)
        return error

    @contextmanager
    def libxc_fd(self, damage: Callable[[bytes], bytes] = bytes) -> Iterator[LibxcStream]:
        """A file that stands at the libxc part of the stream, and what follows it."""
        first = self.stream.parts.index(self.stream.find_header(IMAGE_HEADER))
        end = self.stream.parts.index(self.stream.find(LibxcRecordType.END))
        with tempfile.TemporaryFile() as file:
            file.write(damage(join(self.stream.parts[first : end + 1])))
            file.seek(0)
            yield LibxcStream(file.fileno(), 0)

    def restore_libxc(
        self, damage: Callable[[bytes], bytes] = bytes
    ) -> tuple[LibxcOutcome | None, LibxlsrError | None, int]:
        """``restore_libxc``; its answer, and where the fd stands then."""
        with self.libxc_fd(damage) as stream:
            outcome, error = self.call("restore_libxc", stream)
            return outcome, error, os.lseek(stream.fd, 0, os.SEEK_CUR)

    def rollback(self) -> None:
        """``rollback``, which can't fail where nothing hinders it."""
        assert self.call("rollback") == (None,)


class TargetConformance:
    """The suite. ``make`` and ``left_behind`` are the subclass's; ``stream`` may be."""

    def make(self, ctx: Context) -> Target:
        """A fresh target."""
        raise NotImplementedError

    def left_behind(self) -> list[str]:
        """What a target made here has left in the world; empty after a rollback."""
        raise NotImplementedError

    def stream(self) -> StreamBuilder:
        """An image of an HVM domain that the target can restore."""
        return StreamBuilder("hvm", pages=64, xenstore=[("physmap/a0000/size", "20000")])

    @pytest.fixture
    def driver(self, ctx: Context) -> Driver:
        """A driver of a fresh target."""
        return Driver(ctx, self.make(ctx), self.stream())

    @staticmethod
    def _emulator_records(driver: Driver) -> None:
        keys = driver.stream.find(libxl.RecordType.EMULATOR_XENSTORE_DATA).body_bytes()
        context = driver.stream.find(libxl.RecordType.EMULATOR_CONTEXT).body_bytes()
        decoded = libxl.EmulatorXenstoreData.decode(keys)
        assert driver.call("emulator_xenstore_data", decoded) == (None,)
        assert driver.call("emulator_context", libxl.EmulatorContext.decode(context)) == (None,)

    def test_a_whole_restore(self, driver: Driver) -> None:
        assert driver.prepare() is None
        outcome, error, _ = driver.restore_libxc()
        assert error is None
        assert outcome is not None
        assert outcome.guest_kind in ("hvm", None)
        assert outcome.failover is None
        self._emulator_records(driver)
        restored, error = driver.call("finish")
        assert error is None
        assert isinstance(restored, Restored)
        assert restored.target == driver.target.name
        assert restored.where

    def test_libxc_is_read_to_its_end_and_not_a_byte_more(self, driver: Driver) -> None:
        assert driver.prepare() is None
        length = 0

        def with_trailer(data: bytes) -> bytes:
            nonlocal length
            length = len(data)
            return data + TRAILER

        outcome, error, position = driver.restore_libxc(with_trailer)
        assert error is None
        assert outcome is not None
        assert position == length
        assert outcome.consumed in (length, None)
        driver.rollback()
        assert self.left_behind() == []

    def test_a_first_few_bytes_that_were_read_before(self, driver: Driver) -> None:
        assert driver.prepare() is None
        with driver.libxc_fd() as stream:
            prefix = os.read(stream.fd, 8)
            outcome, error = driver.call("restore_libxc", LibxcStream(stream.fd, 0, prefix))
        assert error is None
        assert outcome is not None
        driver.rollback()
        assert self.left_behind() == []

    def test_rollback_before_anything(self, driver: Driver) -> None:
        driver.rollback()
        assert self.left_behind() == []

    def test_rollback_after_prepare(self, driver: Driver) -> None:
        assert driver.prepare() is None
        driver.rollback()
        assert self.left_behind() == []

    def test_rollback_before_finish(self, driver: Driver) -> None:
        assert driver.prepare() is None
        assert driver.restore_libxc()[1] is None
        self._emulator_records(driver)
        driver.rollback()
        assert self.left_behind() == []

    @pytest.mark.parametrize("kept", [0, 10, 40, 5000])
    def test_a_truncated_libxc_stream(self, driver: Driver, kept: int) -> None:
        assert driver.prepare() is None
        outcome, error, _ = driver.restore_libxc(lambda data: data[:kept])
        assert outcome is None
        assert isinstance(error, LibxlsrError)
        driver.rollback()
        assert self.left_behind() == []

    def test_libxc_stream_of_rubbish(self, driver: Driver) -> None:
        assert driver.prepare() is None
        outcome, error, _ = driver.restore_libxc(lambda data: b"rubbish!" * 1000)
        assert outcome is None
        assert isinstance(error, LibxlsrError)
        driver.rollback()
        assert self.left_behind() == []

    def test_abort_with_no_call_in_flight_does_nothing(self, driver: Driver) -> None:
        driver.target.abort(Aborted())
        assert driver.prepare() is None
        driver.target.abort(Aborted())
        outcome, error, _ = driver.restore_libxc()
        assert (outcome is None, error) == (False, None)
        driver.rollback()
        assert self.left_behind() == []

    def test_abort_while_libxc_waits_for_bytes(self, driver: Driver) -> None:
        assert driver.prepare() is None
        read_end, write_end = os.pipe()
        try:
            answers = driver.begin("restore_libxc", LibxcStream(read_end, 0))
            driver.target.abort(Aborted("enough"))
            outcome, error = driver.end(answers)
        finally:
            os.close(read_end)
            os.close(write_end)
        assert outcome is None
        assert isinstance(error, (Aborted, StreamError))
        driver.rollback()
        assert self.left_behind() == []

    def test_progress_grows(self, driver: Driver) -> None:
        assert driver.prepare() is None
        assert driver.restore_libxc()[1] is None
        counters = driver.hooks.counters
        for name in {name for counted in counters for name in counted}:
            values = [counted[name] for counted in counters if name in counted]
            assert values == sorted(values)
        driver.rollback()
