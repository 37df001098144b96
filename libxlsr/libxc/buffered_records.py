"""Records that wait for their checkpoint: libxenguest's buffered_records, in a file."""

from __future__ import annotations

import os

from libxlsr.files import write_all
from libxlsr.formats.framing import Buffer
from libxlsr.source.file_reader import FileReader

TYPE_CHECKING = False  # as typing has it; verify does without pathlib, too
if TYPE_CHECKING:
    from pathlib import Path


class BufferedRecords:
    """An unlinked file in ``directory``. Raises OSError as the system does."""

    def __init__(self, directory: Path) -> None:
        path = directory / "checkpoint"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.unlink(path)
        self.size = 0
        """Bytes that it holds."""

    def write(self, data: Buffer) -> None:
        """Take what comes next."""
        write_all(self._fd, data)
        self.size += len(data)

    def reader(self, offset: int) -> FileReader:
        """Reads them from the first on, which came at ``offset`` of the stream."""
        return FileReader(self._fd, position=0, offset=offset)

    def clear(self) -> None:
        """Hold nothing any more."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        os.ftruncate(self._fd, 0)
        self.size = 0

    def close(self) -> None:
        """Give the file back."""
        os.close(self._fd)
