"""What stands in a directory, in a form that can be compared; holes cost nothing."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_CHUNK = 1 << 20


def tree(directory: Path) -> dict[str, tuple[int, int, str]]:
    """Each file and directory below by its path: its mode, its size, and a digest of its contents.

    Of a sparse file only what is not a hole goes into the digest, with its place; pages of zeros
    count as holes.
    """
    return {str(path.relative_to(directory)): _entry(path) for path in directory.rglob("*")}


def _entry(path: Path) -> tuple[int, int, str]:
    status = path.lstat()
    if not path.is_file():
        return status.st_mode, 0, ""
    return status.st_mode, status.st_size, _digest(path, status.st_size)


def _digest(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        position = 0
        while position < size:
            try:
                position = os.lseek(file.fileno(), position, os.SEEK_DATA) & ~4095
            except OSError:  # ENXIO: nothing but a hole up to the end
                break
            chunk = os.pread(file.fileno(), _CHUNK, position)
            for start in range(0, len(chunk), 4096):
                page = chunk[start : start + 4096]
                if page.strip(b"\0"):
                    digest.update(f"{position + start:x}".encode() + page)
            position += len(chunk)
    return digest.hexdigest()
