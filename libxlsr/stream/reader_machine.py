"""The automaton of a stream reader: what it does in each state, and the table.

What happens in each state
--------------------------
``HEADER``
    The 16 bytes of the stream header are read.
``RECORD_HDR``
    The 8 bytes of the next record's header are read.
``RECORD_BODY``
    The record's body and padding are read: whole, or the next chunk of a body that is skipped.
``PROCESS``
    The record is processed: acted on, or put aside until its checkpoint is whole.
``DONE``, ``FAILED``
    Nothing.

What the triggers mean
----------------------
They have the names of libxl's callbacks (libxl_stream_read.c).

``header_done``
    The stream header was read and is valid.
``record_header_done``
    The record header was read, and such a record may stand here.
``record_body_done``
    The body was read to its last byte of padding, and decodes.
``record_processed``
    The record has been acted on, put aside or skipped; the next one is due. A LIBXC_CONTEXT is
    being processed for as long as libxc has the fd: when libxc meets a checkpoint it lends the fd
    back, and this trigger fires so that the checkpoint's records can be read.
``complete``
    END was processed, or a failover made the guest of the last checkpoint the result.
``checkpoint_failover``
    The stream broke inside a checkpoint, and an earlier checkpoint is whole. What was read of the
    broken one is dropped, and libxc is being processed again.
``fail``
    Anything else that goes wrong, an abort included.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Callable

from libxlsr.stream.machine import StreamMachine, Table


class State(enum.Enum):
    """What the reader does next."""

    HEADER = "header"
    RECORD_HDR = "record header"
    RECORD_BODY = "record body"
    PROCESS = "process"
    DONE = "done"
    FAILED = "failed"


TABLE: Table[State] = (
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

Trace = Callable[[str, State, State], None]
"""See `machine.Tracer`."""


class ReaderMachine(StreamMachine[State]):
    """Where one stream that is read stands."""

    def __init__(self, trace: Trace | None = None) -> None:
        super().__init__(TABLE, trace)

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
