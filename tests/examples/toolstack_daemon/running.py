"""The example daemon as a running program, and a client's connection to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.paths import ROOT

HOME = ROOT / "examples" / "toolstack_daemon"


class RunningDaemon:
    """The program, its socket, and what it logs."""

    def __init__(self, directory: Path, *options: str, prefix: tuple[str, ...] = ()) -> None:
        self.path = directory / "sock"
        self.output = directory / "guests"
        self.output.mkdir(exist_ok=True)
        if "xen" not in options:
            options = ("--output", str(self.output), *options)
        self.process = subprocess.Popen(
            [
                *prefix,
                *(sys.executable, "-X", "dev", "-W", "error", str(HOME / "toolstack_daemon.py")),
                *("--socket", str(self.path), *options),
            ],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def logged(self, text: str) -> str:
        """Wait for the log line that has ``text`` in it."""
        assert self.process.stderr is not None
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if text in line:
                return line
        raise AssertionError(f"never logged {text!r}: {lines}")

    def stop(self) -> str:
        """SIGTERM; the rest of its log."""
        self.process.send_signal(signal.SIGTERM)
        _, rest = self.process.communicate(timeout=60)
        return rest


class Connection:
    """A client's."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(str(daemon.path))
        self.lines = self.sock.makefile()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.lines.close()
        self.sock.close()

    def ask(self, request: bytes, *fds: int) -> None:
        socket.send_fds(self.sock, [request], list(fds))

    def ask_for(self, name: str, fd: int) -> None:
        self.ask(json.dumps({"name": name}).encode() + b"\n", fd)

    def events(self) -> Iterator[dict[str, Any]]:
        for line in self.lines:
            yield json.loads(line)

    def wait_for_memory(self) -> dict[str, Any]:
        """Wait until the guest's memory is being read; the event that says so."""
        for event in self.events():
            if event.get("phase") == "memory":
                return event
        raise AssertionError("the restore never came to the memory")
