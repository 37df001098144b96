"""The automaton of a stream reader: one table, and `transitions` to fire it.

The rules
---------
* A *state* says what the reader waits for; a *trigger* marks the end of a stage of a record, never
  of a page or of a read. Triggers have the names of libxl's callbacks (libxl_stream_read.c).
* The table is the whole automaton. A trigger that it does not have for a state is refused with
  `transitions.MachineError` and moves nothing. Nothing leaves DONE and FAILED.
* Work that can fail comes *before* the trigger: a body is decoded, and then ``record_body_done``
  fires. So a state is never entered on the strength of bytes that turn out to be wrong.
* The machine owns no fd and no buffer, and gets no arguments: it says only where we are. The
  reader decides what to do next, in ``stream_continue`` and nowhere else.

What the triggers mean
----------------------
``header_done``
    The 16 bytes of the stream header were read and are valid.
``record_header_done``
    The 8 bytes of a record header were read, and such a record may stand here.
``record_body_done``
    The body and its padding were read, and the body decodes.
``record_processed``
    The record has been acted on; the next one is due. A LIBXC_CONTEXT is being processed for as
    long as libxc has the fd: when libxc meets a checkpoint it lends the fd back, and this trigger
    fires so that the checkpoint's records can be read.
``complete``
    END was processed, or a failover made the guest of the last checkpoint the result.
``checkpoint_failover``
    The stream broke inside a checkpoint, and an earlier checkpoint is whole. What was read of the
    broken one is dropped, and libxc is being processed again.
``fail``
    Anything else that goes wrong, an abort included.

Theory: with h11's ``_state.py`` as the example, a literal table can be read, drawn
(docs/state-machine.md) and tested pair by pair, which callbacks that call each other can't.
"""

from __future__ import annotations

import enum
import logging
from typing import TYPE_CHECKING, Callable

from transitions import EventData, Machine

logger = logging.getLogger(__name__)


class State(enum.Enum):
    """What the reader is waiting for."""

    HEADER = "header"
    RECORD_HDR = "record header"
    RECORD_BODY = "record body"
    PROCESS = "process"
    DONE = "done"
    FAILED = "failed"


TABLE: tuple[tuple[str, State, State], ...] = (
    ("header_done", State.HEADER, State.RECORD_HDR),
    ("record_header_done", State.RECORD_HDR, State.RECORD_BODY),
    ("record_body_done", State.RECORD_BODY, State.PROCESS),
    ("record_processed", State.PROCESS, State.RECORD_HDR),
    ("complete", State.PROCESS, State.DONE),
    ("checkpoint_failover", State.RECORD_HDR, State.PROCESS),
    ("checkpoint_failover", State.RECORD_BODY, State.PROCESS),
    ("fail", State.HEADER, State.FAILED),
    ("fail", State.RECORD_HDR, State.FAILED),
    ("fail", State.RECORD_BODY, State.FAILED),
    ("fail", State.PROCESS, State.FAILED),
)
"""Every transition: trigger, from, to."""

Trace = Callable[[str, State, State], None]
"""Called after a transition with the trigger, the state it left and the state it entered. What it
raises is logged, and it is called no more."""


class StreamMachine:
    """Where one stream stands. A machine takes 14 KiB; a trigger about 10 µs."""

    state: State

    def __init__(self, trace: Trace | None = None) -> None:
        self._trace = trace
        self._machine = Machine(
            model=self,
            states=State,
            transitions=[
                {"trigger": trigger, "source": source, "dest": dest}
                for trigger, source, dest in TABLE
            ],
            initial=State.HEADER,
            auto_transitions=False,
            queued=True,
            send_event=True,
            after_state_change=None if trace is None else self._traced,
        )

    if TYPE_CHECKING:
        # What `transitions` binds at run time, declared for readers and type checkers. A method
        # that really stood here would win over the bound one.
        def header_done(self) -> None: ...
        def record_header_done(self) -> None: ...
        def record_body_done(self) -> None: ...
        def record_processed(self) -> None: ...
        def complete(self) -> None: ...
        def checkpoint_failover(self) -> None: ...
        def fail(self) -> None: ...

    @property
    def is_live(self) -> bool:
        """Whether anything can still happen."""
        return self.state not in (State.DONE, State.FAILED)

    def _traced(self, event: EventData) -> None:
        assert event.event is not None
        assert event.transition is not None
        # Whatever leaves a trigger stops the reader: only KeyboardInterrupt and its like may, and
        # the teardown that follows must not meet them again.
        trace, self._trace = self._trace, None
        if trace is None:
            return
        source, dest = str(event.transition.source), str(event.transition.dest)
        try:
            trace(event.event.name, State[source], State[dest])
        except Exception:
            logger.exception("the trace failed at %s, and is told no more", event.event.name)
            return
        self._trace = trace
