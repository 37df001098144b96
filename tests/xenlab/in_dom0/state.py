"""What of the host a restore that failed must leave as it was."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from libxlsr.xen.xenctrl import Xenctrl


@dataclass(frozen=True)
class HostState:
    """Domains, xenstore, libxl's files, our children and fds."""

    domains: frozenset[int]
    nodes: str
    files: frozenset[str]
    processes: frozenset[int]
    fds: frozenset[str]

    @classmethod
    def now(cls) -> HostState:
        with Xenctrl() as xenctrl:
            domains = frozenset(info.domid for info in xenctrl.domains())
        nodes = subprocess.run(
            ["xenstore-ls", "-fp"], capture_output=True, text=True, check=True
        ).stdout
        return cls(
            domains,
            nodes,
            frozenset(str(path) for path in Path("/var/lib/xen").iterdir()),
            frozenset(_descendants(os.getpid())),
            frozenset(os.listdir("/proc/self/fd")),
        )


def _descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
