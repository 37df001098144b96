"""What the stream says of an HVM guest's device model: its keys in xenstore and its state.

Sources: libxl__restore_emulator_xenstore_data (libxl_dom.c), write_emulator_blob and its callback
(libxl_stream_read.c).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from libxlsr.errors import StreamError, TargetError
from libxlsr.events import Context, CopyResult, Datacopier, Outcome
from libxlsr.events.chain import Done
from libxlsr.formats import libxl
from libxlsr.libxc import rules
from libxlsr.xen.xenstore import Transaction, Xenstore


def check_keys(record: libxl.EmulatorXenstoreData) -> None:
    """Raises StreamError where they are not those of the device model that will be started.

    What a key and a value may be, ``EmulatorXenstoreData.decode`` has checked.
    """
    _check_index(record.emulator_index, libxl.RecordType.EMULATOR_XENSTORE_DATA.name)
    # Converted streams of Xen 4.5 and older name no emulator.
    if record.emulator_id == libxl.EMULATOR_QEMU_TRADITIONAL:
        raise _of_another(record.emulator_id, libxl.RecordType.EMULATOR_XENSTORE_DATA.name)


def check_context(record: libxl.EmulatorContext) -> None:
    """Raises StreamError where it is not the state of the device model that will be started."""
    name = libxl.RecordType.EMULATOR_CONTEXT.name
    _check_index(record.emulator_index, name)
    try:
        rules.emulator_empty(record.context, None)
    except StreamError as error:
        if record.emulator_id != libxl.EMULATOR_QEMU_UPSTREAM:
            raise _of_another(record.emulator_id, name) from error
        raise
    if record.emulator_id == libxl.EMULATOR_QEMU_TRADITIONAL:
        raise _of_another(record.emulator_id, name)


def _check_index(index: int, record: str) -> None:
    if index != 0:
        raise StreamError(
            f"it is of the device model with index {index}",
            offset=None,
            record=record,
            expected="index 0: a guest has one device model",
        )


def _of_another(emulator_id: int, record: str) -> StreamError:
    return StreamError(
        f"it is of the device model {libxl.EMULATOR_NAMES[emulator_id]}",
        offset=None,
        record=record,
        expected=f"{libxl.EMULATOR_NAMES[libxl.EMULATOR_QEMU_UPSTREAM]}, the only one that is run",
    )


class ModelNode:
    """The device model's directory in xenstore (DEVICE_MODEL_XS_PATH)."""

    def __init__(self, xenstore: Xenstore, domid: int) -> None:
        self._xenstore = xenstore
        self._all = "/local/domain/0/device-model"
        self._first_of_all = xenstore.read(self._all) is None
        self.path = f"{self._all}/{domid}"

    def make(self) -> None:
        """Make it; what it holds already stays."""
        self._xenstore.mkdir(self.path)

    def write_keys(self, record: libxl.EmulatorXenstoreData) -> None:
        """Write the stream's keys, all or none."""

        def write(nodes: Transaction) -> None:
            for key, value in record.pairs:
                nodes.write(f"{self.path}/{key}", value)

        self._xenstore.transact(write)

    def remove(self) -> None:
        """Remove it, and the one that holds them all where it was not there before."""

        def remove(nodes: Transaction) -> None:
            nodes.rm(self.path)
            if self._first_of_all and nodes.directory(self._all) == []:
                nodes.rm(self._all)

        self._xenstore.transact(remove)


class StateFile:
    """libxl's file with the device model's state, from the stream until QEMU has read it."""

    def __init__(self, ctx: Context, domid: int, lib_dir: Path) -> None:
        self.path = lib_dir / f"qemu-resume.{domid}"
        self._copier = Datacopier(ctx)
        self._fd = -1
        self._exists = False

    def write(self, context: bytes, done: Done) -> None:
        """Write it; ``done(error)`` comes from the loop.

        It is a file of its own: one that is there already is another's, or of a domain that died
        with this id, and goes. Raises OSError.
        """
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self.path, flags, 0o600)
        self._exists = True

        def written(result: CopyResult) -> None:
            self._close()
            if result.outcome is Outcome.DONE:
                done(None)
                return
            assert result.error is not None
            done(TargetError.from_oserror(result.error, f"could not write {self.path}"))

        self._copier.write(self._fd, context, written, what="the device model's state")

    def stop(self) -> None:
        """Write no more; *done* won't come."""
        self._copier.kill()
        self._close()

    def open(self) -> int:
        """An fd to read it from. Raises OSError."""
        return os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def remove(self) -> None:
        """Remove it if it is there. Raises OSError."""
        self.stop()
        if self._exists:
            self.path.unlink()
            self._exists = False

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
