"""One restore, with the caller, the bytes, the time and the target in the hands of the search.

The fd is a real pipe. Time stands still until the deadline passes at once. What is on the egc runs
one callback at a time, and an abort, the deadline or an answer of the target may come before each.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import termios
from collections.abc import Sequence
from dataclasses import dataclass

from libxlsr.errors import Aborted, LibxlsrError, StreamError, TimedOut
from libxlsr.events import READ, Ao, Context
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import RestoreResult
from libxlsr.stream.reader_machine import TABLE, State
from libxlsr.testing.clock import FakeClock

from .held_target import HeldTarget

DEADLINE = 60.0
TRAILER = b"what follows END belongs to somebody else"
_TABLE = frozenset(TABLE)


@dataclass(frozen=True)
class Scenario:
    """What is restored, and what may happen meanwhile."""

    chunks: tuple[bytes, ...]
    """What arrives, in this order; the pipe closes at the end or before, as the search likes."""
    checkpoints: int = 0
    aborts: int = 1
    timeouts: int = 1
    early_eof: bool = True
    """Whether the pipe may be closed before all has arrived."""
    preempt: bool = True
    """Whether the target may answer, too, while callbacks wait to be run."""


class RestoreWorld:
    """See `explore.World`."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._clock = FakeClock()
        self.ctx = Context(clock=self._clock)
        self._lowest_fd = _lowest_free_fd()
        self._readfd, self._writefd = os.pipe()
        os.set_blocking(self._readfd, False)
        self._unsent = list(scenario.chunks)
        self._aborts, self._timeouts = scenario.aborts, scenario.timeouts
        self._completions = 0
        self._reasons: list[LibxlsrError] = []
        self._first_reason: LibxlsrError | None = None
        self._transitions: list[tuple[str, State, State]] = []
        self._stream_failed_first = False
        self.target = HeldTarget(self.ctx, checkpoints=scenario.checkpoints)
        self.ao: Ao[RestoreResult] = restore_ao(
            self.ctx,
            self._readfd,
            RestoreOptions(deadline=DEADLINE, trace=self._trace),
            target=self.target,
            on_done=self._on_done,
        )

    # -- what is heard of it

    def _on_done(self, ao: Ao[RestoreResult]) -> None:
        assert ao is self.ao
        assert ao.done
        self._completions += 1
        assert self._completions == 1

    def _trace(self, trigger: str, source: State, dest: State) -> None:
        self._transitions.append((trigger, source, dest))
        if trigger == "fail" and not self._given():
            self._stream_failed_first = True

    def _given(self) -> bool:
        """Whether an error came from outside: from the caller, the clock or the target."""
        return bool(self._reasons or self.target.errors)

    # -- what can happen

    def choices(self) -> Sequence[str]:
        pending = bool(self.ctx.timeout() == 0.0)
        if self.ao.done and not pending:
            return []
        found = []
        readable = self._readable()
        if pending or readable:
            found.append("run")
        if not pending or self._scenario.preempt:
            found += self.target.choices(self._available())
        if not pending and not readable and self._wanted():
            found += self._arrivals()
        if not self.ao.done:
            found += ["abort"] * (self._aborts > 0) + ["deadline"] * (self._timeouts > 0)
        return found

    def _wanted(self) -> bool:
        """Whether anybody waits for bytes: else it makes no difference when they come."""
        return self.target.wants_data or bool(self.ctx.prepare().fds)

    def _arrivals(self) -> list[str]:
        if self._writefd < 0:
            return []
        if self._unsent:
            return ["data", "eof"] if self._scenario.early_eof else ["data"]
        return ["eof"]

    def _available(self) -> int:
        count = array.array("i", [0])
        fcntl.ioctl(self._readfd, termios.FIONREAD, count)
        return count[0]

    def _readable(self) -> bool:
        return bool(self.ctx.prepare().fds) and (self._available() > 0 or self._writefd < 0)

    def do(self, choice: str) -> None:
        if choice == "run":
            self._run()
        elif choice == "data":
            os.write(self._writefd, self._unsent.pop(0))
        elif choice == "eof":
            self._close_writefd()
        elif choice == "abort":
            self._aborts -= 1
            reason = Aborted("the caller's")
            self._reasons.append(reason)
            self.ao.abort(reason)
            self.ao.abort(reason)
        elif choice == "deadline":
            self._timeouts -= 1
            self._clock.advance(DEADLINE + 1)
            self.ctx.gather({})
        else:
            self.target.do(choice)
        if self._first_reason is None:
            self._first_reason = self.ao.aborting
        timed_out = self.ao.aborting
        if isinstance(timed_out, TimedOut) and timed_out not in self._reasons:
            self._reasons.append(timed_out)

    def _run(self) -> None:
        """One callback. It reads nothing while a record is acted on, and nothing after a failure:
        so what fails leaves all that follows the record at fault."""
        waiting = self._available()
        acting = self.target.acting
        if not self.ctx.step():
            self.ctx.gather(dict.fromkeys(self.ctx.prepare().fds, READ))
            self.ctx.step()
        if acting or self._failed():
            assert self._available() == waiting, "bytes beyond the record at fault were read"

    def _failed(self) -> bool:
        return bool(self._transitions) and self._transitions[-1][2] is State.FAILED

    def _close_writefd(self) -> None:
        if self._writefd >= 0:
            os.close(self._writefd)
            self._writefd = -1

    # -- how it ended

    def end(self) -> None:
        assert self.ao.done, f"it hangs; registered: {self.ctx.registered()}"
        self._check_transitions()
        assert self._completions == 1
        self.ao.abort(Aborted("too late"))
        assert self.ctx.registered() == []
        assert self.target.in_flight is None
        assert not os.get_blocking(self._readfd), "the fd's mode is not as it came"
        try:
            self._check_result(self.ao.result())
        except LibxlsrError as error:
            self._check_error(error)
        self.discard()
        assert _lowest_free_fd() == self._lowest_fd, "an fd is left open"

    def _check_transitions(self) -> None:
        """Not in the trace: a restore does not hear what that raises."""
        state = State.HEADER
        for trigger, source, dest in self._transitions:
            assert source is state
            assert (trigger, source, dest) in _TABLE
            state = dest

    def _check_result(self, result: RestoreResult) -> None:
        assert self.target.finished
        assert not self.target.rolled_back
        assert not self.target.errors
        if self._transitions:
            assert self._transitions[-1][2] is State.DONE
        if result.failover is None:
            whole = b"".join(self._scenario.chunks)
            assert result.stream_bytes == len(whole) - len(TRAILER)
            assert self._rest() == TRAILER, "bytes beyond END were read"
            assert result.checkpoints == self._scenario.checkpoints
        else:
            assert 1 <= result.checkpoints <= self._scenario.checkpoints

    def _rest(self) -> bytes:
        """What nobody has read, of what has arrived and of what was to come."""
        waiting = os.read(self._readfd, 1 << 16) if self._available() else b""
        return waiting + b"".join(self._unsent)

    def _check_error(self, error: LibxlsrError) -> None:
        assert self._rest().endswith(TRAILER), "bytes beyond END were read"
        assert self.target.rolled_back
        assert self.target.calls[-1] == "rollback"
        assert not self.target.finished
        assert error is self._first_reason, "the first error wins"
        if self._transitions:
            assert self._transitions[-1][2] in (State.FAILED, State.DONE)
        given = [*self._reasons, *self.target.errors]
        kept = [error, *error.later]
        for one in given:
            assert one in kept, f"{one!r} is forgotten"
        if error not in given:
            assert isinstance(error, StreamError), "an error from nowhere"
        if self._stream_failed_first or not given:
            # The news of it takes a turn on the egc, and an abort may come before.
            assert any(isinstance(one, StreamError) for one in kept)
        if any(isinstance(one, StreamError) for one in kept):
            assert self._writefd < 0, "nothing was wrong with the stream"
        assert len(error.later) == len({id(later) for later in error.later})

    def discard(self) -> None:
        self._break_off()
        self._close_writefd()
        with contextlib.suppress(OSError):
            os.close(self._readfd)

    def _break_off(self) -> None:
        """Let a restore whose path was left in its middle come to an end."""
        self.ao.abort()
        while self.ctx.step() or not self.ao.done:
            if self.ctx.timeout() != 0.0 and not self.ao.done:
                self.target.do(self.target.choices(0)[0])


def _lowest_free_fd() -> int:
    fd = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
    os.close(fd)
    return fd
