"""The stream that an image of Xen 4.5 or older becomes, converted while it is walked over."""

from __future__ import annotations

from libxlsr.errors import StreamError
from libxlsr.formats.recognise import XEND_MAGIC
from libxlsr.source.byte_reader import LookaheadReader, Truncated
from libxlsr.source.flow_reader import FlowReader
from libxlsr.source.legacy.format import RECOGNISE_SIZE, recognise_legacy
from libxlsr.source.legacy.stream import LegacyStream


class ConversionFailed(Truncated):
    """The converter could go no further. ``offset`` is in the old image."""

    rule = "legacy-damaged"


def converted(source: LookaheadReader) -> FlowReader:
    """The libxl stream that the old image becomes whose first byte is the next one of ``source``.

    What is read of it raises Truncated and ConversionFailed with offsets in the old image.
    """
    pieces = None

    def next_chunk() -> bytes:
        nonlocal pieces
        try:
            if pieces is None:
                pieces = _stream(source).pieces()
            return next(pieces, b"")
        except Truncated:
            raise
        except StreamError as error:
            raise ConversionFailed(
                error.message, offset=error.offset, record=error.record, expected=error.expected
            ) from error

    return FlowReader(next_chunk, converting=True)


def _stream(source: LookaheadReader) -> LegacyStream:
    head = source.peek(RECOGNISE_SIZE)
    if head.startswith(XEND_MAGIC):
        raise StreamError(
            "xend wrote this image", offset=source.offset, expected="one that xl or libxl wrote"
        )
    kind = recognise_legacy(head) if len(head) == RECOGNISE_SIZE else None
    if kind is None:
        raise StreamError(
            "this is no Xen image", offset=source.offset, expected="an image of Xen 4.5 or older"
        )
    return LegacyStream(source, kind)
