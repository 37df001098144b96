"""What tests ask of Xen and xenstored, and do to domains, without starting a program each time.

Under emulation ``xl`` takes a second to say a domain's id, and Python half a second to start.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

from libxlsr.xen.xenctrl import Xenctrl
from libxlsr.xen.xenstore import Perm, Xenstore

from .waiting import wait_until


@functools.cache
def xenctrl() -> Xenctrl:
    """A handle on the hypervisor, open until the process ends."""
    return Xenctrl()


@functools.cache
def xenstore() -> Xenstore:
    """A connection to xenstored, open until the process ends."""
    return Xenstore()


def find_domid(name: str) -> int | None:
    """The id of the domain of that name, as xl finds it; None where there is none."""
    for info in xenctrl().domains():
        if xenstore().read(f"/local/domain/{info.domid}/name") == name:
            return info.domid
    return None


def domid_of(name: str) -> int:
    """The id of the domain of that name, which must be there."""
    domid = find_domid(name)
    assert domid is not None, f"there is no domain {name}"
    return domid


_LETTERS = {Perm.NONE: "n", Perm.READ: "r", Perm.WRITE: "w", Perm.READ | Perm.WRITE: "b"}


def listing(path: str) -> dict[str, str]:
    """The node and all below it as ``xenstore-ls -fp`` shows them: the value in quotes and the
    permissions, by path."""
    found = {}
    for below, value in xenstore().walk(path):
        permissions = xenstore().get_permissions(below)
        if permissions is not None:  # it has not gone between the two requests
            entries = ",".join(f"{_LETTERS[perms]}{domid}" for domid, perms in permissions)
            found[below] = f'"{value}" ({entries})'
    return found


def is_there(domid: int) -> bool:
    """Whether Xen has the domain, a dying one too."""
    return xenctrl().domain_info(domid) is not None


def destroy(domid: int) -> None:
    """Have libxl destroy the domain with all that belongs to it, and wait until Xen has let it
    go."""
    _destroyer().destroy(domid)
    wait_until(lambda: not is_there(domid), f"domain {domid} to go")


class _Destroyer:
    """The program destroyer.py: libxl waits for any child of its process, ours included."""

    def __init__(self) -> None:
        self._program = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.destroyer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )

    def destroy(self, domid: int) -> None:
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(f"{domid}\n")
        said = self._program.stdout.readline()
        assert said == "destroyed\n", said

    def end(self) -> None:
        self._program.communicate()


@functools.cache
def _destroyer() -> _Destroyer:
    return _Destroyer()


XENSTOREDS_PROCESSOR = 0


def start() -> None:
    """Open and start everything, so that a test finds no more of it afterwards than before.

    This process, and with it what it starts, shares a processor with xenstored. Each of a restore's
    hundred requests and their answers would have to wake another processor otherwise, which is
    another thread of the QEMU outside: on busy cores that takes ten times as long.
    """
    for pid in (_xenstored(), os.getpid()):
        os.sched_setaffinity(pid, {XENSTOREDS_PROCESSOR})
    xenctrl()
    xenstore()
    _destroyer()


def end() -> None:
    """End what was started."""
    _destroyer().end()
    os.sched_setaffinity(_xenstored(), range(os.cpu_count() or 1))


def free_of_xenstored(pid: int) -> None:
    """Let a process that asks xenstored nothing run on any processor."""
    os.sched_setaffinity(pid, range(os.cpu_count() or 1))


def _xenstored() -> int:
    """Its process id; Debian's is the one in OCaml."""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and process.joinpath("comm").read_text().strip() in (
            "oxenstored",
            "xenstored",
        ):
            return int(process.name)
    raise AssertionError("no xenstored is running")
