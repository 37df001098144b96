"""An output directory that is complete or absent.

Everything is written into a directory beside the output, flushed, and then renamed: at no time
does the output's name stand for half a guest.
"""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import NoReturn

from libxlsr.errors import TargetError
from libxlsr.restoring.image.small_files import flush, json_bytes, write_file

_NAME_SHOWN = 200
"""Bytes of the output's name that its staging directory shows: a name may have 255 (NAME_MAX), and
what is put round it takes 18."""


class StagedOutput:
    """The directory in the making, at ``path`` until `publish` renames it to ``final``."""

    def __init__(self, final: Path) -> None:
        """Raises TargetError when ``final`` exists already or its parent can't be written to."""
        self.final = final
        _check_absent(final)
        try:
            name = os.fsdecode(os.fsencode(final.name)[:_NAME_SHOWN])
            made = tempfile.mkdtemp(prefix=f".{name}.", suffix=".partial", dir=final.parent)
        except OSError as error:
            raise TargetError.from_oserror(
                error, f"can't make the output in {final.parent}", call="mkdir"
            ) from error
        self.path = Path(made)
        try:
            # What `discard` needs, should there be no more to be had by then.
            self._reserve = os.open(self.path, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            os.rmdir(self.path)
            raise TargetError.from_oserror(
                error, f"can't make the output in {final.parent}", call="open"
            ) from error
        self._written: set[str] = set()

    def write(self, name: str, data: bytes) -> None:
        """Write one small file. Raises TargetError."""
        self._written.add(name)
        try:
            write_file(self.path / name, data)
        except OSError as error:
            raise TargetError.from_oserror(error, f"can't write {name}", call="write") from error

    def write_json(self, name: str, value: object) -> None:
        """Write one small file as JSON for people and programs. Raises TargetError."""
        self.write(name, json_bytes(value))

    def publish(self) -> None:
        """Make the output visible, flushed to the disk. Raises TargetError.

        Files that were written by others have to be flushed by then.
        """
        try:
            for name in self._written:
                flush(self.path / name)
            for directory, _names, _files in os.walk(self.path):
                flush(Path(directory))
            # rename(2) would silently replace an empty directory that came to be meanwhile.
            _check_absent(self.final)
            os.rename(self.path, self.final)
            self.path = self.final  # a failure from here on has to remove it there
            flush(self.final.parent)
            self._give_up_reserve()
        except OSError as error:
            raise TargetError.from_oserror(
                error, f"can't finish the output {self.final}", call="rename"
            ) from error

    def discard(self) -> None:
        """Remove everything. Raises OSError for what can't be removed."""
        self._give_up_reserve()
        _remove_tree(self.path)

    def _give_up_reserve(self) -> None:
        if self._reserve >= 0:
            fd, self._reserve = self._reserve, -1
            os.close(fd)


def _remove_tree(path: Path) -> None:
    """As shutil.rmtree, which needs two fds for each level where this needs one."""

    def failed(error: OSError) -> NoReturn:
        raise error

    for directory, _names, files in os.walk(path, topdown=False, onerror=failed):
        for name in files:
            os.unlink(os.path.join(directory, name))
        os.rmdir(directory)


def _check_absent(path: Path) -> None:
    """Raises TargetError where there is something, a dangling symlink included, or can't be."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # ValueError: a NUL in it
        number = error.errno if isinstance(error, OSError) else errno.EINVAL
        raise TargetError(f"can't make the output {str(path)!r}", errno=number) from error
    raise TargetError(
        f"the output {path} exists already",
        errno=errno.EEXIST,
        remedy="choose another name for it, or remove what is there",
    )
