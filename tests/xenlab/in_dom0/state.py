"""What of the host a restore that failed must leave as it was."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from libxlsr.xen.xenctrl import Xenctrl

# The first domain of a host brings these, whoever makes it, and no toolstack takes them away.
_LASTING_NODES = ('/libxl = ""', '/vm = ""')
_LASTING_FILE = "/var/run/xen/domid-history"


@dataclass(frozen=True)
class HostState:
    """Domains, xenstore, libxl's files and sockets, device models, loop devices, network
    interfaces, our children, orphans and fds."""

    domains: frozenset[int]
    nodes: str
    files: frozenset[str]
    models: frozenset[int]
    loops: frozenset[str]
    interfaces: frozenset[str]
    children: frozenset[int]
    orphans: frozenset[str]
    fds: frozenset[str]

    @classmethod
    def now(cls) -> HostState:
        with Xenctrl() as xenctrl:
            domains = frozenset(info.domid for info in xenctrl.domains())
        listed = subprocess.run(
            ["xenstore-ls", "-fp"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        processes = dict(_processes())
        return cls(
            domains,
            "\n".join(line for line in listed if not line.startswith(_LASTING_NODES)),
            frozenset(_files()) - {_LASTING_FILE},
            frozenset(pid for pid, process in processes.items() if process.is_device_model),
            frozenset(path.parts[3] for path in Path("/sys/block").glob("loop*/loop")),
            frozenset(path.name for path in Path("/sys/class/net").iterdir()),
            frozenset(_children()),
            frozenset(_orphans(processes)),
            frozenset(os.listdir("/proc/self/fd")),
        )


def _files() -> Iterator[str]:
    for directory in (Path("/var/lib/xen"), Path("/var/run/xen")):
        if directory.is_dir():
            yield from map(str, directory.iterdir())


def _children() -> Iterator[int]:
    """This process's own, those included that have ended and were not waited for."""
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)


class _Process(NamedTuple):
    parent: int
    started: str
    name: str
    argv: list[str]
    cgroup: str

    @property
    def is_device_model(self) -> bool:
        return "-xen-domid" in self.argv


def _processes() -> Iterator[tuple[int, _Process]]:
    """Those that run a program: no kernel threads, and none that has ended."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            command = _read(f"/proc/{pid}/cmdline")
            if not command:
                continue
            name, _, rest = _read(f"/proc/{pid}/stat").partition("(")[2].rpartition(")")
            cgroup = _read(f"/proc/{pid}/cgroup")
        except OSError:  # it has ended meanwhile
            continue
        fields = rest.split()
        # proc(5), stat: the state, the parent, …; the 22nd of all is when it started.
        argv = command.rstrip("\0").split("\0")
        yield int(pid), _Process(int(fields[1]), fields[19], name, argv, cgroup)


def _read(path: str) -> str:
    # Not pathlib: under emulation it takes twice as long as the reading, twice in each test.
    with open(path, "rb", buffering=0) as file:
        return file.read().decode(errors="replace")


def _orphans(processes: Mapping[int, _Process]) -> Iterator[str]:
    """What tests have started and nobody looks after any more: a process whose parent was killed
    becomes init's child, as a hotplug script's does.

    They are told by their cgroup, in which a process stays whoever its parent is: systemd gives
    udev's workers, timers and daemons cgroups of their own. What sshd has above it is another
    command's in dom0, and what this process has above it is the business of a child of its. xl
    leaves a process behind to watch a guest, which goes in its own time when the guest has gone.
    """
    ours = processes[os.getpid()].cgroup

    def is_looked_after(pid: int) -> bool:
        while pid in processes and processes[pid].cgroup == ours:
            if pid == os.getpid() or processes[pid].name.startswith("sshd"):
                return True
            pid = processes[pid].parent
        return False

    for pid, process in processes.items():
        if process.cgroup == ours and process.name != "xl" and not is_looked_after(pid):
            yield f"{pid}, started at {process.started}: {' '.join(process.argv)}"
