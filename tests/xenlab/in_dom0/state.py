"""What of the host a restore that failed must leave as it was."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from libxlsr.xen.xenctrl import Xenctrl

# The first domain of a host brings these, whoever makes it, and no toolstack takes them away.
_LASTING_NODES = ('/libxl = ""', '/vm = ""')
_LASTING_FILE = "/var/run/xen/domid-history"


@dataclass(frozen=True)
class HostState:
    """Domains, xenstore, libxl's files and sockets, device models, loop devices, network
    interfaces, our children and fds."""

    domains: frozenset[int]
    nodes: str
    files: frozenset[str]
    models: frozenset[int]
    loops: frozenset[str]
    interfaces: frozenset[str]
    processes: frozenset[int]
    fds: frozenset[str]

    @classmethod
    def now(cls) -> HostState:
        with Xenctrl() as xenctrl:
            domains = frozenset(info.domid for info in xenctrl.domains())
        listed = subprocess.run(
            ["xenstore-ls", "-fp"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        return cls(
            domains,
            "\n".join(line for line in listed if not line.startswith(_LASTING_NODES)),
            frozenset(_files()) - {_LASTING_FILE},
            frozenset(_device_models()),
            frozenset(path.parts[3] for path in Path("/sys/block").glob("loop*/loop")),
            frozenset(path.name for path in Path("/sys/class/net").iterdir()),
            frozenset(_descendants(os.getpid())),
            frozenset(os.listdir("/proc/self/fd")),
        )


def _files() -> Iterator[str]:
    for directory in (Path("/var/lib/xen"), Path("/var/run/xen")):
        if directory.is_dir():
            yield from map(str, directory.iterdir())


def _device_models() -> Iterator[int]:
    for process in Path("/proc").glob("[1-9]*"):
        try:
            argv = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended meanwhile
            continue
        if b"-xen-domid" in argv:
            yield int(process.name)


def _descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
