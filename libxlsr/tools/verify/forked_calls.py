"""One function for many arguments, each in a forked process of its own, several at a time.

Not by concurrent.futures: where it can't start its thread, it waits for ever.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, NoReturn, TypeVar, cast

from libxlsr.tools.verify.lifeline import Lifeline

S = TypeVar("S")
T = TypeVar("T")


def forked_calls(
    function: Callable[[S], T], arguments: Sequence[S], number: int
) -> Generator[T | None, None, None]:
    """What ``function`` returns for each of ``arguments``, in their order, ``number`` at a time.

    None where the process ends without a result: it was killed, had no thread, or ``function``
    raised something (a traceback on standard error says what). Raises OSError where no process can
    be made. Whatever ends it early, be it this process's death, ends all of them.
    """
    results: dict[int, T | None] = {}
    running: dict[Connection, tuple[int, int]] = {}
    waiting = list(range(len(arguments)))[::-1]
    with closing(Lifeline()) as lifeline:
        try:
            for wanted in range(len(arguments)):
                while wanted not in results:
                    while waiting and len(running) < number:
                        index = waiting.pop()
                        result, to_parent = Pipe(duplex=False)
                        with to_parent, lifeline.forking():
                            pid = os.fork()
                            if pid == 0:
                                _call(lifeline, to_parent, function, arguments[index])
                            running[result] = index, pid
                    for result in cast("list[Connection]", wait(list(running))):
                        index, pid = running[result]
                        results[index] = _received(result)
                        _reap(pid)
                        del running[result]
                yield results.pop(wanted)
        finally:
            lifeline.cut()
            for result, (_, pid) in running.items():
                result.close()
                _reap(pid)


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):  # the kernel has, where SIGCHLD is ignored
        os.waitpid(pid, 0)


def _received(result: Connection) -> Any:
    with result, suppress(EOFError, OSError):
        return result.recv()
    return None


def _call(
    lifeline: Lifeline, to_parent: Connection, function: Callable[[S], object], argument: S
) -> NoReturn:
    try:
        lifeline.hold()
        to_parent.send(function(argument))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)
