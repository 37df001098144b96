"""What the walks over libxl's records and over libxc's have in common: where they are, what is
wrong there, and how to get past it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from libxlsr.errors import StreamError
from libxlsr.formats.framing import check_padding, padded_length
from libxlsr.libxc.visitor import Problem, Record, Visitor
from libxlsr.source.byte_reader import ByteReader, Truncated


class CannotGoOn(Exception):
    """There is no way past the problem that the visitor was told of."""


class RecordWalk:
    """A walk over the records of one ``layer``, "libxl" or "libxc"."""

    def __init__(self, layer: str, reader: ByteReader, visitor: Visitor) -> None:
        self._layer = layer
        self._reader = reader
        self._visitor = visitor
        self._number = 0
        self._record: Record | None = None

    def _begin_record(self) -> int:
        self._record = None
        return self._reader.offset

    def _met(self, record_type: int, length: int, offset: int) -> Record:
        self._number += 1
        self._record = Record(self._layer, self._number, record_type, length, offset)
        return self._record

    def _coming(self) -> tuple[str, int]:
        """What messages call the record whose header comes, and its number."""
        return f"{self._layer} record {self._number + 1}", self._number + 1

    def _problem(
        self,
        rule: str,
        error: StreamError,
        where: str | None = None,
        number: int | None = None,
    ) -> None:
        """``where`` and ``number`` are of what is read while there is no record."""
        if isinstance(error, Truncated):
            rule = error.rule
        if self._reader.converting and isinstance(error, Truncated):
            number = None  # it says itself where it is in the old image
        elif self._record is not None:
            error.record, number = str(self._record), self._record.number
        elif error.record is None:
            error.record = where
        self._visitor.problem(Problem(rule, error, number))

    def _wrong_body(self, record: Record, finding: str | None, error: StreamError) -> None:
        """``finding`` is that of the record's row in `libxlsr.formats.records`."""
        assert finding is not None, f"the row of {record.name} names no finding"
        self._problem(finding, error)

    @contextmanager
    def _rule(
        self, rule: str, where: str | None = None, number: int | None = None
    ) -> Iterator[None]:
        """What goes wrong within breaks ``rule``, and there is no way past it."""
        try:
            yield
        except StreamError as error:
            self._problem(rule, error, where, number)
            raise CannotGoOn from None

    def _no_way_past(self) -> AbstractContextManager[None]:
        """What is read within has no rule of its own to break: the bytes can end there."""
        return self._rule(Truncated.rule)

    def _skip(self, nbytes: int) -> None:
        with self._no_way_past():
            self._reader.skip(nbytes, "a record's body")

    def _padding(self, record: Record, rule: str) -> None:
        size = padded_length(record.length) - record.length
        if not size:
            return
        offset = self._reader.offset
        with self._no_way_past():
            padding = self._reader.read(size, f"the padding of {record.name}")
        try:
            check_padding(padding, offset, record.name)
        except StreamError as error:
            self._problem(rule, error)
