"""Which libxl record may follow which (docs/specs/libxl-migration-stream.pandoc, "Layout").

A plain stream::

    LIBXC_CONTEXT  [EMULATOR_XENSTORE_DATA]  [EMULATOR_CONTEXT]  END

and a checkpointed one, where libxc lends the fd out at each of its CHECKPOINT records::

    LIBXC_CONTEXT  ( [EMULATOR_XENSTORE_DATA]  [EMULATOR_CONTEXT]  CHECKPOINT_END )*
                   [EMULATOR_XENSTORE_DATA]  [EMULATOR_CONTEXT]  END

The part after the last checkpoint is there only when the sender ends in good order. Records of
unknown optional types may stand anywhere and are not asked about here. A section is what stands
between LIBXC_CONTEXT, or a CHECKPOINT of libxc's, and END or CHECKPOINT_END; each record's place in
one is in its row (records.py).
"""

from __future__ import annotations

from libxlsr.errors import StreamError
from libxlsr.formats.libxl import RecordType
from libxlsr.formats.records import LIBXL


class RecordOrder:
    """Follows one stream; says no to a record that can't stand where it does."""

    def __init__(self) -> None:
        self._previous: RecordType | None = None
        self._in_checkpoint = False

    def start_checkpoint(self) -> None:
        """libxc lent the fd out: a new section begins, which ends in CHECKPOINT_END."""
        self._in_checkpoint = True
        self._previous = RecordType.LIBXC_CONTEXT

    def check(self, record_type: RecordType, offset: int | None) -> None:
        """Accept the record as the next one, or raise StreamError."""
        problem = self._problem(record_type)
        if problem is not None:
            raise StreamError(problem, offset=offset)
        if record_type is RecordType.CHECKPOINT_END:
            self._in_checkpoint = False
            self._previous = RecordType.LIBXC_CONTEXT
        else:
            self._previous = record_type

    def _problem(self, record_type: RecordType) -> str | None:
        row = LIBXL[record_type]
        name = row.name
        if row.refused is not None:
            return row.refused
        if record_type is RecordType.LIBXC_CONTEXT:
            return None if self._previous is None else f"a second {name}"
        if self._previous is None:
            return f"{name} before LIBXC_CONTEXT"
        if record_type is RecordType.END and self._in_checkpoint:
            return "END inside a checkpoint, before its CHECKPOINT_END"
        if record_type is RecordType.CHECKPOINT_END and not self._in_checkpoint:
            return "CHECKPOINT_END outside a checkpoint"
        if record_type is self._previous:
            return f"a second {name}"
        previous = LIBXL[self._previous]
        if (row.place or 0) < (previous.place or 0):
            return f"{name} after {previous.name}"
        return None
