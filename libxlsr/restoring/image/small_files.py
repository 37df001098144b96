"""Writing the small files of an offline restore, in the helper's child as in its parent.

Apart from output.py, whose imports would make each child start later.
"""

from __future__ import annotations

import json
import os
from pathlib import Path


def json_bytes(value: object) -> bytes:
    """A value as JSON for people and programs."""
    return json.dumps(value, indent=1, ensure_ascii=True).encode() + b"\n"


def write_file(path: Path, data: bytes) -> None:
    """Write one file, readable by its owner only; its directory is made if need be.

    It is not flushed: a stream may have it written again and again. Nor is it truncated first,
    because ext4 flushes a file that was (mount option auto_da_alloc).
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with open(fd, "wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        file.truncate(len(data))


def flush(path: Path) -> None:
    """Have what was written to a file or directory put on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
