"""An output file that is complete or absent: made in a directory beside it, then put in place."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from libxlsr.errors import TargetError
from libxlsr.restoring.image.output import StagedOutput

_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})


class StagedFile:
    """The file in the making is ``path``; ``directory`` has room for what its making needs."""

    def __init__(self, final: Path) -> None:
        """Raises TargetError when ``final`` exists already or its parent can't be written to."""
        self.final = final.absolute()
        self._staged = StagedOutput(self.final)
        self.directory = self._staged.path
        self.path = self.directory / "output"

    def publish(self) -> None:
        """Put the file, which has been flushed, in its place. Raises TargetError."""
        try:
            try:  # unlike rename(2), never takes the place of what came to be there meanwhile
                os.link(self.path, self.final)
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS or os.path.lexists(self.final):
                    raise
                os.rename(self.path, self.final)
            fd = os.open(self.final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise TargetError.from_oserror(
                error, f"can't finish the output {self.final}", call="link"
            ) from error

    def discard(self) -> None:
        """Remove everything but the published file. Raises OSError for what can't be removed."""
        with contextlib.suppress(FileNotFoundError):
            self._staged.discard()
