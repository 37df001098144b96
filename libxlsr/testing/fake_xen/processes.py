"""The processes of a fake host: helpers that reach it, device models that outlive a restore."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from libxlsr.helper.parent import Helper
from libxlsr.testing.fake_xen import child, device_model


class ChildHelper(Helper):
    """A helper whose child reaches the fake host at ``address``."""

    address = ""

    def spawn(self) -> None:
        """Start the child, which runs the worker with the fake host's libraries."""
        told = {child.ADDRESS: self.address, child.WORKER: self._worker}
        worker, self._worker = self._worker, child.__name__
        try:
            with mock.patch.dict(os.environ, told):
                super().spawn()
        finally:
            self._worker = worker


def install_device_model(path: Path) -> None:
    """Put the program where QEMU is looked for."""
    source = Path(device_model.__file__).read_text()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable} -IS\n{source}")
    path.chmod(0o755)


def device_models(program: Path) -> Iterator[int]:
    """The processes that run it."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                # Its interpreter, the interpreter's options, and the script. Its keeper has the
                # script too, further behind.
                if os.fsencode(program) in words[:3]:
                    yield int(entry.name)


def kill(pid: int) -> None:
    """Kill a process, and wait until it has ended."""
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [])
        finally:
            os.close(pidfd)
