"""The reader's automaton: every state with every trigger, and the places that name the triggers."""

from __future__ import annotations

import ast
import enum
import itertools
from pathlib import Path

import pytest
from transitions import MachineError

from libxlsr.stream import reader, reader_machine
from libxlsr.stream.machine import StreamMachine
from libxlsr.stream.reader_machine import TABLE, ReaderMachine, State, Trace

TRIGGERS = sorted({trigger for trigger, _, _ in TABLE})
LEGAL = {(source, trigger): dest for trigger, source, dest in TABLE}
LIVE = (State.HEADER, State.RECORD_HDR, State.RECORD_BODY, State.PROCESS)


def machine_in(state: State, trace: Trace | None = None) -> ReaderMachine:
    """A machine that was brought to ``state`` by legal triggers, the shortest way."""
    ways: dict[State, list[str]] = {State.HEADER: []}
    while state not in ways:
        for trigger, source, dest in TABLE:
            if source in ways:
                ways.setdefault(dest, [*ways[source], trigger])
    brought = ReaderMachine(trace)
    for trigger in ways[state]:
        getattr(brought, trigger)()
    assert brought.state is state
    return brought


@pytest.mark.parametrize(("state", "trigger"), list(itertools.product(State, TRIGGERS)))
def test_every_pair(state: State, trigger: str) -> None:
    transitions: list[tuple[str, State, State]] = []
    stream = machine_in(state, lambda *transition: transitions.append(transition))
    transitions.clear()
    dest = LEGAL.get((state, trigger))
    if dest is None:
        with pytest.raises(MachineError):
            getattr(stream, trigger)()
        assert stream.state is state
        assert transitions == []
    else:
        getattr(stream, trigger)()
        assert stream.state is dest
        assert transitions == [(trigger, state, dest)]


def test_the_table_has_no_pair_twice() -> None:
    assert len(LEGAL) == len(TABLE)


def test_each_live_state_has_an_action_and_no_other_state_has() -> None:
    assert set(reader._ACTIONS) == set(LIVE)


def test_a_new_machine_waits_for_the_header() -> None:
    assert ReaderMachine().state is State.HEADER


def test_nothing_leaves_the_last_two_states() -> None:
    assert {state for state, _ in LEGAL} == set(LIVE)


@pytest.mark.parametrize("state", LIVE)
def test_each_live_state_can_fail(state: State) -> None:
    assert LEGAL[state, "fail"] is State.FAILED


@pytest.mark.parametrize("state", State)
def test_what_is_live(state: State) -> None:
    assert machine_in(state).is_live is (state in LIVE)


def _declared() -> set[str]:
    """The triggers in the TYPE_CHECKING block of ReaderMachine."""
    tree = ast.parse(Path(reader_machine.__file__).read_text())
    (declaring,) = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and _is_type_checking(node.test)
    ]
    return {node.name for node in declaring.body if isinstance(node, ast.FunctionDef)}


def _is_type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def test_table_declarations_and_bound_names_are_one_set() -> None:
    stream = ReaderMachine()
    bound = {
        name
        for name, value in vars(stream).items()
        if not name.startswith("_") and callable(value) and not name.startswith("is_")
    }
    # `transitions` binds three names of its own to every model.
    bound -= {"trigger", "may_trigger"} | {f"may_{trigger}" for trigger in TRIGGERS}
    assert _declared() == set(TRIGGERS) == bound


def test_no_door_round_the_table() -> None:
    assert not [name for name in dir(ReaderMachine()) if name.startswith("to_")]


def test_no_declared_trigger_is_a_real_method_that_would_win() -> None:
    assert not set(TRIGGERS) & set(vars(ReaderMachine))


def test_the_trace_is_told_of_each_transition_and_of_no_refused_trigger() -> None:
    transitions: list[tuple[str, State, State]] = []
    stream = ReaderMachine(lambda *transition: transitions.append(transition))
    stream.header_done()
    with pytest.raises(MachineError):
        stream.complete()
    stream.fail()
    assert transitions == [
        ("header_done", State.HEADER, State.RECORD_HDR),
        ("fail", State.RECORD_HDR, State.FAILED),
    ]


def test_a_trace_that_raises_is_told_no_more_and_stops_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str] = []

    def trace(trigger: str, source: State, dest: State) -> None:
        told.append(trigger)
        raise ZeroDivisionError

    stream = ReaderMachine(trace)
    stream.header_done()
    stream.record_header_done()
    assert stream.state is State.RECORD_BODY
    assert told == ["header_done"]
    (record,) = caplog.records
    assert record.getMessage() == "the trace failed at header_done, and is told no more"


def test_ctrl_c_in_the_trace_comes_once_and_the_machine_can_still_fail() -> None:
    def trace(trigger: str, source: State, dest: State) -> None:
        raise KeyboardInterrupt

    stream = ReaderMachine(trace)
    with pytest.raises(KeyboardInterrupt):
        stream.header_done()
    stream.fail()
    assert stream.state is State.FAILED


def test_without_a_trace_nothing_is_called_at_a_transition() -> None:
    assert ReaderMachine()._machine.after_state_change == []


class Light(enum.Enum):
    """Of another automaton: one that a writer could bring."""

    RED = 1
    GREEN = 2
    OUT = 3


def test_a_machine_takes_any_table() -> None:
    told: list[tuple[str, Light, Light]] = []
    light: StreamMachine[Light] = StreamMachine(
        (("go", Light.GREEN, Light.RED), ("switch_off", Light.RED, Light.OUT)),
        lambda *transition: told.append(transition),
    )
    assert light.state is Light.GREEN
    with pytest.raises(MachineError):
        light.switch_off()  # type: ignore[attr-defined]
    was_live = light.is_live
    light.go()  # type: ignore[attr-defined]
    light.switch_off()  # type: ignore[attr-defined]
    assert (was_live, light.is_live) == (True, False)
    assert told == [("go", Light.GREEN, Light.RED), ("switch_off", Light.RED, Light.OUT)]
