"""Files that libxl reads too, replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, new: Path, data: bytes, mode: int) -> None:
    """Write ``data`` under the name ``new``, then give it the name ``path``.

    Raises OSError; then ``path`` is as it was, and there is no ``new``.
    """
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with open(fd, "wb") as file:
            file.write(data)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
