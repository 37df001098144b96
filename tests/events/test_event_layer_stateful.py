"""The loop, the datacopier and the ao together, against a model that is a few lists of bytes.

Hypothesis feeds bytes, hangs up, starts reads, kills, aborts, lets time pass and steps, in any
order. The model knows which bytes each read must deliver. Invariants: nothing is read that was not
asked for, each callback comes once and in order, and what ended is no longer registered.
"""

from __future__ import annotations

import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from libxlsr.errors import Aborted, LibxlsrError, TimedOut
from libxlsr.events import Ao, Context, CopyResult, Datacopier, Outcome
from libxlsr.testing import stepping
from libxlsr.testing.clock import FakeClock

DEADLINE = 100.0


class EventLayer(RuleBasedStateMachine):
    """One operation: it reads chunks of a chosen size from a pipe until it is told to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.ctx = Context(clock=self.clock)
        self.read_end, self.write_end = os.pipe()
        self.hung_up = False
        self.datacopier = Datacopier(self.ctx)
        self.results: list[CopyResult] = []
        self.completions = 0
        self.ao: Ao[int] = Ao(self.ctx, on_done=self._on_done, deadline=DEADLINE)
        self.ao.set_abort_handler(self._abort)
        # The model.
        self.on_the_way = b""  # written, not delivered by a read yet
        self.wanted: int | None = None
        self.expected: list[tuple[Outcome, bytes]] = []
        self.first_reason: type[LibxlsrError] | None = None

    def _on_done(self, ao: Ao[int]) -> None:
        assert ao is self.ao
        self.completions += 1

    def _abort(self, reason: LibxlsrError) -> None:
        self.datacopier.kill()
        self.ao.fail(Aborted("while stopping"))

    def _model_ends_read(self) -> None:
        """Move a read that has all it needs, or meets the end, from wanted to expected."""
        if self.wanted is None:
            return
        if len(self.on_the_way) >= self.wanted:
            data, self.on_the_way = (
                self.on_the_way[: self.wanted],
                self.on_the_way[self.wanted :],
            )
            self.expected.append((Outcome.DONE, data))
            self.wanted = None
        elif self.hung_up:
            self.expected.append((Outcome.EOF, self.on_the_way))
            self.on_the_way = b""
            self.wanted = None

    def _settle(self) -> None:
        stepping.run_until_idle(self.ctx)
        self._model_ends_read()

    @rule(data=st.binary(min_size=1, max_size=40))
    @precondition(lambda self: not self.hung_up)
    def feed(self, data: bytes) -> None:
        os.write(self.write_end, data)
        self.on_the_way += data

    @rule()
    @precondition(lambda self: not self.hung_up)
    def hang_up(self) -> None:
        os.close(self.write_end)
        self.hung_up = True

    @rule(nbytes=st.integers(0, 50), framed=st.booleans())
    @precondition(lambda self: self.wanted is None and not self.ao.done and not self.ao.aborting)
    def read(self, nbytes: int, framed: bool) -> None:
        self._settle()
        if self.ao.done:
            return
        before = len(self.results)
        if framed:
            with self.ctx.frame():
                self._start(nbytes)
                assert len(self.results) == before
        else:
            self._start(nbytes)
            assert len(self.results) == before
        self.wanted = nbytes

    def _start(self, nbytes: int) -> None:
        self.datacopier.read_exactly(self.read_end, nbytes, self.results.append, what="chunk")

    @rule()
    def step(self) -> None:
        stepping.step(self.ctx)

    @rule()
    def dispatch(self) -> None:
        self.ctx.dispatch(stepping.poll(self.ctx))

    @rule()
    def settle(self) -> None:
        self._settle()
        assert [(r.outcome, bytes(r.data)) for r in self.results] == self.expected
        assert self.completions == self.ao.done
        assert self.datacopier.active is (self.wanted is not None)

    @rule()
    def kill(self) -> None:
        self._settle()
        self._kill_in_model()
        self.datacopier.kill()

    def _kill_in_model(self) -> None:
        """What a killed read has taken is gone; it had all that was on the way."""
        if self.wanted is not None:
            self.on_the_way = b""
            self.wanted = None

    @rule(times=st.integers(1, 3))
    def abort(self, times: int) -> None:
        self._settle()
        for _ in range(times):
            self.ao.abort()
        if not self.ao.done:
            self.first_reason = self.first_reason or Aborted
            self._kill_in_model()
        self._settle()

    @rule(seconds=st.floats(-20, 60))
    def time_passes(self, seconds: float) -> None:
        self._settle()
        self.clock.advance(seconds)
        if self.clock() >= 1000 + DEADLINE and not self.ao.done:
            self.first_reason = self.first_reason or TimedOut
            self._kill_in_model()
        self._settle()

    @rule()
    @precondition(lambda self: self.wanted is None)
    def complete(self) -> None:
        self._settle()
        if not self.ao.done:
            self.ao.complete(len(self.results))
            self._settle()
            assert self.ao.result() == len(self.results)

    @invariant()
    def what_ended_is_not_registered(self) -> None:
        assert self.completions <= 1
        if self.ao.done and not self.datacopier.active and self.completions:
            assert self.ctx.registered() == []

    @invariant()
    def the_first_reason_is_the_error(self) -> None:
        if self.ao.done and self.ao.aborting is not None:
            assert type(self.ao.aborting) is self.first_reason

    def teardown(self) -> None:
        self._settle()
        assert [(r.outcome, bytes(r.data)) for r in self.results] == self.expected
        if self.wanted is None and not self.hung_up and self.on_the_way:
            assert os.read(self.read_end, 1 << 16) == self.on_the_way
        self._kill_in_model()
        self.datacopier.kill()
        self.ao.abort()
        self._settle()
        assert self.completions == 1
        assert self.ctx.registered() == []
        os.close(self.read_end)
        if not self.hung_up:
            os.close(self.write_end)


EventLayer.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestEventLayer = EventLayer.TestCase
