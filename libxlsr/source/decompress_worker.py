"""The program in the decompressor's helper: compressed bytes in, plain bytes out.

Arguments: ``codec`` ("gzip", "xz", "zstd"), ``fd_in``, ``fd_out``, ``prefix`` (hex: bytes that
were read from ``fd_in`` before). The output's fd is left open until the process ends: when the
reader sees the end of the pipe, what went wrong here has been reported already.
"""

from __future__ import annotations

from typing import Any

from libxlsr.files import write_all
from libxlsr.helper.child import Channel
from libxlsr.source.codecs import Decompression


def run(channel: Channel) -> dict[str, Any]:
    """Decompress to the end of the input, or until nobody reads the output any more."""
    args = channel.receive_work()
    plain = Decompression(args["codec"], args["fd_in"], bytes.fromhex(args["prefix"]))
    try:
        for chunk in plain.chunks():
            write_all(args["fd_out"], chunk)
            channel.progress({"source_bytes": plain.compressed_bytes})
    except BrokenPipeError:
        pass  # the restore has all that it wants, or has failed for reasons of its own
    return {"source_bytes": plain.compressed_bytes}
