"""Images as bytes, and a verify of bytes."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from typing import Any

from libxlsr.testing.builder import StreamBuilder
from libxlsr.tools.verify.verifier import Verified, verify

#: The domains that a test runs on where it should hold for all of them.
KINDS: list[dict[str, Any]] = [
    {},
    {"xl_header": False},
    {"guest": "pvh", "version": 2},
    {"guest": "pvh", "vcpus": 4, "dirtied": [[1, 2, 3], [2]]},
    {"guest": "pv"},
    {"guest": "pv", "guest_width": 4, "version": 2, "pages": 2500, "vcpus": 2, "types": {5: 0xF}},
    {"guest": "pv", "types": {3: 0x1, 4: 0xC}, "dirtied": [[3], [9, 2]]},
    {"checkpoints": [[3, 4], []], "xenstore": [("physmap/a0000/size", "20000")]},
    {"guest": "pv", "checkpoints": [[1], [2], [3]]},
    {"verify": True, "dirtied": [[0]], "batch": 3, "types": {2: 0xE, 3: 0xD}},
]


def verify_bytes(data: bytes, **options: Any) -> Verified:
    """Verify an image that lies in a file."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        return verify(file.fileno(), **options)


def verify_through_pipe(data: bytes, **options: Any) -> Verified:
    """Verify an image that comes through a pipe, little by little."""
    reader, writer = os.pipe()

    def feed() -> None:
        view = memoryview(data)
        with contextlib.suppress(BrokenPipeError):  # it has seen enough
            while view:
                view = view[os.write(writer, view[:1000]) :]
        os.close(writer)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        return verify(reader, **options)
    finally:
        os.close(reader)
        thread.join()


def verify_stream(stream: StreamBuilder, **options: Any) -> Verified:
    """Verify what a builder makes."""
    return verify_bytes(stream.build(), **options)


def ids(verified: Verified) -> set[str]:
    """The ids of what was found."""
    return {finding.id for finding in verified.findings}
