"""Tasks that run at the same time: the first error wins, each is heard once, later errors stay."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from libxlsr.errors import Aborted, LibxlsrError, TargetError, TimedOut
from libxlsr.events import Ao, Context
from libxlsr.events.chain import Done
from libxlsr.events.tasks import Task, Tasks
from libxlsr.testing.clock import FakeClock
from libxlsr.testing.stepping import run_until_idle


class Operation:
    """One operation with tasks, which notes what it is told."""

    def __init__(self, ctx: Context, deadline: float | None = None) -> None:
        self.said: list[str] = []
        self.ao: Ao[str] = Ao(ctx, deadline=deadline)
        self.tasks = Tasks(ctx, self.ao, stopping=self._stopping, stopped=self._stopped)

    def start(self, name: str, *, at_once: bool = False) -> Task:
        """A task that notes that it is told to stop, and ends then where it does so ``at_once``."""

        def stop(reason: LibxlsrError) -> None:
            self.said.append(f"stop {name}: {reason}")
            if at_once:
                task.ended()

        task = self.tasks.start(stop)
        return task

    def _stopping(self, error: LibxlsrError) -> None:
        self.said.append(f"stopping: {error}")

    def _stopped(self, error: LibxlsrError) -> None:
        self.said.append("stopped")
        self.ao.fail(error)

    @property
    def error(self) -> LibxlsrError:
        with pytest.raises(LibxlsrError) as caught:
            self.ao.result()
        return caught.value


@pytest.fixture
def operation(ctx: Context) -> Iterator[Operation]:
    yield Operation(ctx)
    run_until_idle(ctx)


def test_the_operation_goes_on_when_the_last_has_ended(operation: Operation) -> None:
    tasks = [operation.start("first"), operation.start("second")]
    operation.tasks.when_ended(lambda: operation.said.append("ended"))
    tasks[1].ended()
    assert operation.said == []
    tasks[0].ended()
    assert operation.said == ["ended"]


def test_all_are_told_to_stop_in_their_order_and_each_is_waited_for(operation: Operation) -> None:
    first, second, third = (operation.start(name) for name in ("first", "second", "third"))
    operation.tasks.when_ended(lambda: operation.said.append("ended"))
    second.ended(TargetError("no space"))
    assert operation.said == ["stopping: no space", "stop first: no space", "stop third: no space"]
    third.ended()
    assert operation.said[3:] == []
    first.ended()
    assert operation.said[3:] == ["stopped"]
    assert str(operation.error) == "no space"
    assert operation.error.later == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_first_error_wins_and_later_ones_are_kept(
    operation: Operation, order: tuple[int, ...]
) -> None:
    errors = [TargetError(f"error {number}") for number in range(3)]
    tasks = [operation.start(str(number)) for number in range(3)]
    for number in order:
        tasks[number].ended(errors[number])
    assert operation.error is errors[order[0]]
    assert operation.error.later == [errors[number] for number in order[1:]]
    assert operation.said.count("stopped") == 1


def test_a_task_that_stops_at_once(operation: Operation) -> None:
    operation.start("first", at_once=True)
    operation.start("second", at_once=True)
    operation.tasks.fail(TargetError("no"))
    assert operation.said == ["stopping: no", "stop first: no", "stop second: no", "stopped"]


def test_a_task_that_ends_with_another_is_not_told(operation: Operation) -> None:
    tasks: list[Task] = []
    tasks.append(operation.tasks.start(lambda _reason: tasks[1].ended()))
    tasks.append(operation.start("second"))
    operation.tasks.fail(TargetError("no"))
    assert operation.said == ["stopping: no"]
    tasks[0].ended()
    assert operation.said == ["stopping: no", "stopped"]


def test_an_error_with_nothing_running(operation: Operation) -> None:
    operation.tasks.fail(TargetError("no"))
    operation.tasks.fail(TargetError("again"))
    assert operation.said == ["stopping: no", "stopped"]
    assert str(operation.error) == "no"


def test_an_abort_is_an_error_like_any_other(ctx: Context, operation: Operation) -> None:
    task = operation.start("task")
    reason = Aborted("enough")
    operation.ao.abort(reason)
    operation.ao.abort(Aborted("again"))
    run_until_idle(ctx)
    assert operation.said == ["stopping: enough", "stop task: enough"]
    task.ended(reason)
    assert operation.error is reason
    assert [str(later) for later in reason.later] == ["again"]


def test_a_deadline(fake_ctx: Context, clock: FakeClock) -> None:
    operation = Operation(fake_ctx, deadline=3)
    operation.start("task", at_once=True)
    clock.advance(3)
    run_until_idle(fake_ctx)
    assert isinstance(operation.error, TimedOut)


@pytest.mark.parametrize("comes", ["an error", "the end"])
def test_an_abort_that_is_not_heard_of_yet_comes_first(
    ctx: Context, operation: Operation, comes: str
) -> None:
    task = operation.start("task")
    operation.tasks.when_ended(lambda: operation.said.append("ended"))
    reason, late = Aborted("enough"), TargetError("late")
    operation.ao.abort(reason)
    task.ended(late if comes == "an error" else None)
    run_until_idle(ctx)
    assert operation.said == ["stopping: enough", "stopped"]
    assert operation.error is reason
    assert reason.later == ([late] if comes == "an error" else [])


def test_a_stop_that_raises_is_a_later_error_and_the_rest_is_told(operation: Operation) -> None:
    def stop(_reason: LibxlsrError) -> None:
        raise ZeroDivisionError("stop")

    task = operation.tasks.start(stop)
    operation.start("second", at_once=True)
    operation.tasks.fail(TargetError("no"))
    task.ended()
    assert operation.said[-2:] == ["stop second: no", "stopped"]
    assert ["ZeroDivisionError: stop" in str(later) for later in operation.error.later] == [True]


class Calls:
    """Calls made for a task, and what it hears of them."""

    def __init__(self, operation: Operation) -> None:
        self.outer = operation.start("outer", at_once=True)
        self.pending: list[Done] = []
        self.heard: list[LibxlsrError | None] = []
        self._tasks = operation.tasks

    def make(self, call: Callable[[Done], object] | None = None) -> None:
        """Make one, which is pending unless ``call`` does otherwise."""
        self._tasks.call(
            call or self.pending.append,
            self.heard.append,
            stop=lambda _reason: None,
            doing="make a call",
        )


def test_a_calls_outcome_comes_to_the_task_that_waits(operation: Operation) -> None:
    calls = Calls(operation)
    error = TargetError("no")
    calls.make()
    calls.make()
    calls.pending[0](None)
    calls.pending[1](error)
    assert calls.heard == [None, error]
    assert operation.said == []


def test_a_calls_outcome_after_an_error_is_only_kept(operation: Operation) -> None:
    calls = Calls(operation)
    first, second = TargetError("first"), TargetError("second")
    calls.make()
    operation.tasks.fail(first)
    assert operation.said[-1] == "stop outer: first"
    calls.pending[0](second)
    assert calls.heard == []
    assert operation.error is first
    assert first.later == [second]


def test_a_call_that_raises_has_failed_later(ctx: Context, operation: Operation) -> None:
    def call(_done: Done) -> None:
        raise ZeroDivisionError("call")

    calls = Calls(operation)
    calls.make(call)
    assert calls.heard == []
    run_until_idle(ctx)
    assert ["could not make a call: ZeroDivisionError: call" in str(e) for e in calls.heard] == [
        True
    ]


def test_nothing_happens_once_the_operation_is_done(ctx: Context, operation: Operation) -> None:
    operation.ao.complete("it")
    operation.tasks.fail(TargetError("late"))
    run_until_idle(ctx)
    assert operation.said == []
    assert operation.ao.result() == "it"
