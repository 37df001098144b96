"""A Xen host in dictionaries: what of libxenctrl and libxenstore a restore asks for."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Callable, TypeVar

from libxlsr.errors import LibxlsrError
from libxlsr.xen.hostinfo import DomainInfo, PhysInfo
from libxlsr.xen.xenstore import Permission

from .hosts import HOST

T = TypeVar("T")


def domain_info(domid: int, handle: uuid.UUID, *, dying: bool = False) -> DomainInfo:
    """A paused domain."""
    return DomainInfo(
        domid=domid,
        uuid=handle,
        hvm=True,
        hap=True,
        dying=dying,
        paused=True,
        blocked=False,
        running=False,
        shutdown_reason=None,
        total_bytes=0,
        max_bytes=0,
        outstanding_bytes=0,
        cpu_time_ns=0,
        online_vcpus=0,
        max_vcpu_id=None,
        cpupool=0,
    )


class FakeXenctrl:
    """The hypervisor. ``fail_info`` is what each question for one domain raises."""

    def __init__(self) -> None:
        self.by_id: dict[int, DomainInfo] = {}
        self.fail_info: LibxlsrError | None = None

    def create(self, handle: uuid.UUID, domid: int | None = None) -> int:
        """Make a domain, as ``create.create_domain`` does."""
        if domid is None:
            domid = max(self.by_id, default=0) + 1
        self.by_id[domid] = domain_info(domid, handle)
        return domid

    def physinfo(self) -> PhysInfo:
        return HOST

    def domains(self) -> Iterator[DomainInfo]:
        yield from self.by_id.values()

    def domain_info(self, domid: int) -> DomainInfo | None:
        if self.fail_info is not None:
            raise self.fail_info
        return self.by_id.get(domid)

    def domain_destroy(self, domid: int) -> None:
        del self.by_id[domid]

    def close(self) -> None:
        pass


class FakeXenstore:
    """xenstored, with transactions that are dropped when they raise."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.permissions: dict[str, list[Permission]] = {}

    def read(self, path: str) -> str | None:
        return self.values.get(path)

    def write(self, path: str, value: str) -> None:
        above = path.rpartition("/")[0]
        if above:
            self.mkdir(above)
        self.values[path] = value

    def mkdir(self, path: str) -> None:
        if path not in self.values:
            self.write(path, "")

    def rm(self, path: str) -> None:
        for name in self.below(path):
            del self.values[name]
            self.permissions.pop(name, None)

    def directory(self, path: str) -> list[str] | None:
        if path not in self.values:
            return None
        return [name.rpartition("/")[2] for name in self.values if name.rpartition("/")[0] == path]

    def set_permissions(self, path: str, permissions: Sequence[Permission]) -> None:
        self.permissions[path] = list(permissions)

    def transact(self, body: Callable[[FakeXenstore], T]) -> T:
        before = dict(self.values), dict(self.permissions)
        try:
            return body(self)
        except BaseException:
            self.values, self.permissions = before
            raise

    def close(self) -> None:
        pass

    def below(self, path: str) -> list[str]:
        """The node and all below it."""
        return [name for name in self.values if name == path or name.startswith(f"{path}/")]
