"""The program in the legacy converter's helper: an old image in, a libxl stream out.

Arguments: ``fd_in``, ``fd_out``, ``prefix`` (hex: bytes that were read from ``fd_in`` before),
``offset`` (of the prefix's first byte in the image, for messages), ``to_eof`` (whether something
that follows the image is an error). The output's fd is left open until the process ends: when the
reader sees the end of the pipe, what went wrong here has been reported already.
"""

from __future__ import annotations

from typing import Any

from libxlsr.errors import StreamError
from libxlsr.files import write_all
from libxlsr.helper.child import Channel
from libxlsr.source.exact_reader import ExactReader
from libxlsr.source.legacy import format as legacy
from libxlsr.source.legacy.stream import LegacyStream


def run(channel: Channel) -> dict[str, Any]:
    """Convert to the end of the image, or until nobody reads the output any more."""
    args = channel.receive_work()
    head = bytes.fromhex(args["prefix"])
    source = ExactReader(args["fd_in"], 0, head)
    try:
        left = legacy.RECOGNISE_SIZE - len(head)
        if left > 0:
            head += ExactReader(args["fd_in"]).read(left, "the head of a legacy image")
        kind = legacy.recognise_legacy(head)
        if kind is None:
            raise StreamError(
                "this is no Xen image",
                offset=0,
                expected="an image of Xen 4.5 or older",
            )
        source = ExactReader(args["fd_in"], 0, head)
        for piece in LegacyStream(source, kind).pieces():
            write_all(args["fd_out"], piece)
            channel.progress({"source_bytes": args["offset"] + source.offset})
        if args["to_eof"] and not source.at_end():
            raise StreamError(
                "something follows the end of the image",
                offset=source.offset - 1,
                expected="the end of the file",
                remedy="cut it off, or pipe the image in to have it ignored",
            )
    except BrokenPipeError:
        pass  # the restore has all that it wants, or has failed for reasons of its own
    except StreamError as error:
        if error.offset is not None:
            error.offset += args["offset"]
        raise
    return {"source_bytes": args["offset"] + source.offset}
