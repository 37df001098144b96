"""xenstore in a dictionary, for thousands of configurations in a second.

Everything else is tested on `libxlsr.testing.fake_xen`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, TypeVar

from libxlsr.xen.hostinfo import PhysInfo
from libxlsr.xen.xenstore import Permission

from .hosts import HOST

T = TypeVar("T")


class FakeXenctrl:
    """A host."""

    def physinfo(self) -> PhysInfo:
        return HOST


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

    def below(self, path: str) -> list[str]:
        """The node and all below it."""
        return [name for name in self.values if name == path or name.startswith(f"{path}/")]
