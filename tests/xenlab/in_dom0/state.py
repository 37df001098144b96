"""What of the host a restore that failed must leave as it was."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .dom0 import listing, xenctrl

# The first domain of a host brings these, whoever makes it, and no toolstack takes them away.
_LASTING_NODES = ("/libxl", "/vm")
_LASTING_FILE = "/var/run/xen/domid-history"


@dataclass(frozen=True)
class HostState:
    """Domains, xenstore, libxl's files and sockets, device models, loop devices, network
    interfaces and orphans. What this process itself holds is `Held`."""

    domains: frozenset[int]
    nodes: Mapping[str, str]
    """Path to value and permissions."""

    files: frozenset[str]
    models: frozenset[int]
    loops: frozenset[str]
    interfaces: frozenset[str]
    orphans: frozenset[str]

    @classmethod
    def now(cls) -> HostState:
        processes = dict(_processes())
        return cls(
            frozenset(info.domid for info in xenctrl().domains()),
            _nodes(),
            frozenset(_files()) - {_LASTING_FILE},
            frozenset(pid for pid, process in processes.items() if process.is_device_model),
            frozenset(path.parts[3] for path in Path("/sys/block").glob("loop*/loop")),
            frozenset(os.listdir("/sys/class/net")),
            frozenset(_orphans(processes)),
        )


def _nodes() -> dict[str, str]:
    return {
        path: node
        for path, node in listing("/").items()
        if not (path in _LASTING_NODES and node.startswith('""'))
    }


def _files() -> Iterator[str]:
    for directory in ("/var/lib/xen", "/var/run/xen"):
        if os.path.isdir(directory):
            for name in os.listdir(directory):
                yield f"{directory}/{name}"


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


@dataclass(frozen=True)
class Held:
    """What this process holds: children by their command lines, fds by what they are of, and files
    in a directory.

    No process ids and no fds' numbers: those of the spare helper, which a restore takes, are not
    those of the next one.
    """

    things: Counter[str]

    @classmethod
    def now(cls, directory: str) -> Held:
        files = (f"file {path}" for path in os.listdir(directory))
        return cls(Counter([*_children(), *_fds(), *files]))

    def more_than(self, before: Held) -> list[str]:
        """What is held now and was not held then."""
        return sorted((self.things - before.things).elements())


def _children() -> Iterator[str]:
    """Those that have ended and were not waited for have no command line."""
    for task in os.listdir("/proc/self/task"):
        for child in _read(f"/proc/self/task/{task}/children").split():
            words = _read(f"/proc/{child}/cmdline").rstrip("\0").split("\0")
            # A helper's socket, a number, is among its arguments.
            yield " ".join(["child", *("N" if word.isdecimal() else word for word in words)])


def _fds() -> Iterator[str]:
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # that of the listing itself
            continue
        yield re.sub(r"\[\d+\]", "[N]", f"fd of {target}")
