"""Taking the steps of a restore back."""

from __future__ import annotations

import errno

from libxlsr.domain.undo import Undo
from libxlsr.errors import TargetError


def test_the_last_step_is_taken_back_first() -> None:
    undo, order = Undo(), []
    undo.push("one", lambda: order.append(1))
    undo.push("two", lambda: order.append(2))
    assert undo.run() == []
    assert order == [2, 1]
    assert undo.run() == []
    assert order == [2, 1]


def test_a_step_that_fails_stops_no_other() -> None:
    undo, order = Undo(), []

    def fails(error: Exception) -> None:
        raise error

    undo.push("the domain", lambda: order.append("domain"))
    undo.push("the file", lambda: fails(OSError(errno.EIO, "no")))
    undo.push("the nodes", lambda: fails(TargetError("xenstored is gone")))
    first, second = undo.run()
    assert order == ["domain"]
    assert str(first) == "xenstored is gone"
    assert isinstance(second, TargetError)
    assert (second.errno, "the file is left behind" in second.message) == (errno.EIO, True)


def test_success_takes_nothing_back() -> None:
    undo, order = Undo(), []
    undo.push("one", lambda: order.append(1))
    undo.forget()
    undo.run()
    assert order == []
