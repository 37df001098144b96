"""Taking the steps of a restore back."""

from __future__ import annotations

import errno
from typing import Any

from libxlsr.domain.undo import Undo, summary
from libxlsr.errors import LibxlsrError, TargetError
from libxlsr.events import Context
from libxlsr.events.chain import Done
from libxlsr.testing.stepping import run_until


def run(undo: Undo) -> list[LibxlsrError]:
    """Takes everything back where nothing has to wait."""
    over: list[list[LibxlsrError]] = []
    undo.run(over.append)
    (errors,) = over
    return errors


def test_the_last_step_is_taken_back_first() -> None:
    undo, order = Undo(), []
    undo.push("one", lambda: order.append(1))
    undo.push("two", lambda: order.append(2))
    assert run(undo) == []
    assert order == [2, 1]
    assert run(undo) == []
    assert order == [2, 1]


def test_a_step_that_fails_stops_no_other() -> None:
    undo, order = Undo(), []

    def fails(error: Exception) -> None:
        raise error

    undo.push("the domain", lambda: order.append("domain"))
    undo.push("the file", lambda: fails(OSError(errno.EIO, "no")))
    undo.push("the nodes", lambda: fails(TargetError("xenstored is gone")))
    first, second = run(undo)
    assert order == ["domain"]
    assert str(first) == "xenstored is gone"
    assert isinstance(second, TargetError)
    assert (second.errno, "the file is left behind" in second.message) == (errno.EIO, True)


def test_success_takes_nothing_back() -> None:
    undo, order = Undo(), []
    undo.push("one", lambda: order.append(1))
    undo.forget()
    assert run(undo) == []
    assert order == []


def test_one_that_waits_is_waited_for(ctx: Context) -> None:
    undo, order = Undo(), []
    over: list[list[LibxlsrError]] = []

    def waits(name: str, error: LibxlsrError | None, done: Done) -> None:
        order.append(f"{name} begins")

        def ends() -> None:
            order.append(f"{name} ends")
            done(error)

        ctx.call_later(0.0, ends)

    def fails(_done: Done) -> None:
        raise TargetError("can't be begun")

    gone = TargetError("domain 7 does not go away")
    undo.push("the file", lambda: order.append("file"))
    undo.push_waiting("domain 7", lambda done: waits("domain", gone, done))
    undo.push("the nodes", lambda: order.append("nodes"))
    undo.push_waiting("the process", fails)
    undo.push_waiting("the devices", lambda done: waits("devices", None, done))
    undo.run(over.append)
    assert order == ["devices begins"]
    run_until(ctx, lambda: bool(over))
    assert order == [
        "devices begins",
        "devices ends",
        "nodes",
        "domain begins",
        "domain ends",
        "file",
    ]
    assert [str(error) for error in over[0]] == ["can't be begun", "domain 7 does not go away"]


def test_the_first_error_has_the_others() -> None:
    errors: list[Any] = [TargetError("one"), TargetError("two")]
    first = summary(errors)
    assert first is errors[0]
    assert first.later == [errors[1]]
    assert summary([]) is None
