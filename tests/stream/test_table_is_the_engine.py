"""Nothing moves a stream but the table: without any of its rows, or with triggers that are legal
everywhere or nowhere, tests of reading fail. (An AttributeError is a trigger's that has no row.)"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
from transitions import MachineError

from libxlsr.stream import reader, reader_machine
from libxlsr.stream.reader_machine import TABLE, ReaderMachine, State
from libxlsr.testing.libxl_records import T, stream
from libxlsr.testing.reader_stepper import ReaderStepper

from . import test_reader, test_reader_checkpoints


@pytest.fixture(autouse=True)
def nothing_stays_registered() -> None:
    """Not asked for here: a test that fails halfway leaves what it did not come to release."""


def _reading_tests() -> list[Callable[[], None]]:
    """The tests of reading that take no arguments."""
    return [
        test
        for module in (test_reader, test_reader_checkpoints)
        for name, test in vars(module).items()
        if name.startswith("test_") and not inspect.signature(test).parameters
    ]


def _failures() -> int:
    """How many tests of reading fail as things are."""
    count = 0
    for test in _reading_tests():
        try:
            test()
        except (AssertionError, AttributeError, MachineError):
            count += 1
    return count


def test_with_the_whole_table_every_one_passes() -> None:
    assert len(_reading_tests()) > 20
    assert _failures() == 0


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]} from {row[1].name}")
def test_without_a_row(row: tuple[str, State, State], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        reader_machine, "TABLE", tuple(other for other in TABLE if other is not row)
    )
    assert _failures()


def test_without_any_transition(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise MachineError("no trigger is legal")

    class Never(ReaderMachine):
        def __init__(self, trace: reader_machine.Trace | None = None) -> None:
            super().__init__(trace)
            for trigger, _source, _dest in TABLE:
                setattr(self, trigger, refuse)

    monkeypatch.setattr(reader, "ReaderMachine", Never)
    assert _failures() == len(_reading_tests())


def test_with_every_trigger_legal_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    everywhere = tuple(
        (trigger, state, dest)
        for trigger, dest in {trigger: dest for trigger, _source, dest in TABLE}.items()
        for state in (State.HEADER, State.RECORD_HDR, State.RECORD_BODY, State.PROCESS)
    )
    monkeypatch.setattr(reader_machine, "TABLE", everywhere)
    assert _failures()


def test_with_triggers_that_move_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Still(ReaderMachine):
        def __init__(self, trace: reader_machine.Trace | None = None) -> None:
            super().__init__(trace)
            for trigger, _source, _dest in TABLE:
                setattr(self, trigger, lambda: None)

    monkeypatch.setattr(reader, "ReaderMachine", Still)
    stepper = ReaderStepper(stream(T.LIBXC_CONTEXT, T.END))
    stepper.start()
    for _ in range(3):  # the state says that the stream header is due, however much was read
        assert stepper.source.requests[-1] == (16, "stream header")
        stepper.step()
