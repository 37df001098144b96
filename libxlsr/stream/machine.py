"""The engine of a stream reader or writer: an automaton from a table, fired by `transitions`.

The rules
---------
* The table is the whole automaton; what reads or writes a stream brings its own. A trigger that
  the table does not have for a state is refused with `transitions.MachineError` and moves nothing.
  The first row leaves the initial state, and nothing leaves an end state.
* The *state* says what happens next. There is one action for each state that something leaves, and
  it is chosen by the state in one place, ``stream_continue``. So only a trigger moves the stream.
* A *trigger* marks the end of a stage of a record, never of a page or of a read, and has the name
  of the libxl callback that is called there. A callback checks what it was given, fires a trigger
  and continues.
* Work that can fail comes *before* the trigger: a body is decoded, and then ``record_body_done``
  fires. So a state is never entered on the strength of bytes that turn out to be wrong.
* The machine owns no fd and no buffer, and a trigger has no arguments.

Theory: with h11's ``_state.py`` as the example, a literal table can be read, drawn
(docs/state-machine.md) and tested pair by pair, which callbacks that call each other can't.
"""

from __future__ import annotations

import enum
import logging
from typing import Callable, Generic, TypeVar

from transitions import EventData, Machine

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=enum.Enum)

Table = tuple[tuple[str, S, S], ...]
"""Every transition: trigger, from, to."""

Tracer = Callable[[str, S, S], None]
"""Called after a transition with the trigger, the state it left and the state it entered. What it
raises is logged, and it is called no more."""


class StreamMachine(Generic[S]):
    """Where one stream stands. Each trigger of the table is a method without arguments; a subclass
    declares them. A machine takes 14 KiB; a trigger about 10 µs."""

    state: S

    def __init__(self, table: Table[S], trace: Tracer[S] | None = None) -> None:
        self._trace = trace
        self._live = frozenset(source for _trigger, source, _dest in table)
        initial = table[0][1]
        self._machine = Machine(
            model=self,
            states=type(initial),
            transitions=[
                {"trigger": trigger, "source": source, "dest": dest}
                for trigger, source, dest in table
            ],
            initial=initial,
            auto_transitions=False,
            queued=True,
            send_event=True,
            after_state_change=None if trace is None else self._traced,
        )

    @property
    def is_live(self) -> bool:
        """Whether anything can still happen: whether the table has a way out of the state."""
        return self.state in self._live

    def _traced(self, event: EventData) -> None:
        assert event.event is not None
        assert event.transition is not None
        # Whatever leaves a trigger stops the stream: only KeyboardInterrupt and its like may, and
        # the teardown that follows must not meet them again.
        trace, self._trace = self._trace, None
        if trace is None:
            return
        states = type(self.state)
        source, dest = str(event.transition.source), str(event.transition.dest)
        try:
            trace(event.event.name, states[source], states[dest])
        except Exception:
            logger.exception("the trace failed at %s, and is told no more", event.event.name)
            return
        self._trace = trace
