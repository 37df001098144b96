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
    """Write and flush one file, readable by its owner only; its directory is made if need be."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        os.fsync(fd)
