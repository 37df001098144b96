"""xenstored: nodes with permissions, transactions, watches; and xenconsoled, which lives by it.

Sources: docs/misc/xenstore.txt, tools/xenstored/core.c (4.17: tools/xenstore/xenstored_core.c).
Paths and values are text of one character a byte. Every connection is dom0's, which may do
everything.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from libxlsr.testing.fake_xen.failure import XenFailure
from libxlsr.testing.fake_xen.hypervisor import Hypervisor

PAYLOAD_MAX = 4096
"""XENSTORE_PAYLOAD_MAX: a path with its NUL and its value."""

PERMISSIONS = [(0, 0)]
"""Of the root: dom0's, and nobody else may."""

_PATH = re.compile(r"/|(?:/[-\w@]+)+", re.ASCII)


class Node(NamedTuple):
    """One node. ``generation`` changes with it, and with the names right below it."""

    value: str
    permissions: Sequence[tuple[int, int]]
    """(domain, XS_PERM_*), the owner's first."""
    generation: int


@dataclass
class Transaction:
    """All nodes as they were at its start, and as they are in it."""

    start: dict[str, Node]
    nodes: dict[str, Node]
    seen: set[str] = field(default_factory=set)
    changed: list[str] = field(default_factory=list)


@dataclass
class Connection:
    """One connection with its watches; ``watch_fd`` is readable while events wait."""

    watch_fd: int
    wake_fd: int
    watches: list[tuple[str, str]] = field(default_factory=list)
    events: deque[tuple[str, str]] = field(default_factory=deque)
    transactions: dict[int, Transaction] = field(default_factory=dict)


class Xenstored:
    """The daemon. Methods raise `XenFailure` with the errno that the request fails with.

    ``t`` is the number of a transaction of the connection, 0 for none.
    """

    def __init__(self, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor
        self._generations = itertools.count(1)
        self._numbers = itertools.count(1)
        self.nodes: dict[str, Node] = {"/": Node("", PERMISSIONS, 0)}
        self.connections: dict[int, Connection] = {}
        self.introduced: dict[int, tuple[int, int]] = {}
        """The ring's frame and the port of each domain that it is connected to."""
        self.features: int | None = None
        """Those that it can offer a domain; None: it is older than Xen 4.21, and doesn't know."""
        self.features_of: dict[int, int] = {}
        """Those that domains are offered, where that was said."""
        self.has_quota_of_domains = False
        """Whether it is of Xen 4.22 or newer."""
        self.quota_of: dict[int, dict[str, int]] = {}
        self.xenconsoled_runs = True
        """Where it does not, no console gets its tty."""

    @property
    def values(self) -> dict[str, str]:
        """The value of each node."""
        return {path: node.value for path, node in self.nodes.items()}

    # Connections.

    def open(self) -> int:
        """A new connection's number."""
        number = next(self._numbers)
        self.connections[number] = Connection(*os.pipe2(os.O_CLOEXEC))
        return number

    def close(self, connection: int) -> None:
        """End a connection, with its watches and its open transactions."""
        gone = self.connections.pop(connection)
        os.close(gone.watch_fd)
        os.close(gone.wake_fd)

    # Nodes.

    def read(self, connection: int, t: int, path: str) -> str:
        return self._existing(connection, t, path).value

    def directory(self, connection: int, t: int, path: str) -> list[str]:
        self._existing(connection, t, path)
        above = path.rstrip("/") + "/"
        below = (name for name in self._nodes(connection, t, path) if name.startswith(above))
        names = (name[len(above) :] for name in below)
        return [name for name in names if name and "/" not in name]

    def write(self, connection: int, t: int, path: str, value: str) -> None:
        if len(path) + 1 + len(value) > PAYLOAD_MAX:
            raise XenFailure(errno.E2BIG)
        self._make(connection, t, path, value)

    def mkdir(self, connection: int, t: int, path: str) -> None:
        if path not in self._nodes(connection, t, path):
            self._make(connection, t, path, "")

    def rm(self, connection: int, t: int, path: str) -> None:
        nodes = self._nodes(connection, t, path)
        if path == "/":
            raise XenFailure(errno.EINVAL)
        if path not in nodes:
            if _above(path) in nodes:  # do_rm: then there is nothing to do
                return
            raise XenFailure(errno.ENOENT)
        below = f"{path}/"
        for name in [name for name in nodes if name == path or name.startswith(below)]:
            del nodes[name]
        self._touch(connection, t, _above(path))
        self._changed(connection, t, path)

    def get_permissions(self, connection: int, t: int, path: str) -> list[tuple[int, int]]:
        return list(self._existing(connection, t, path).permissions)

    def set_permissions(
        self, connection: int, t: int, path: str, permissions: Sequence[tuple[int, int]]
    ) -> None:
        if not permissions:
            raise XenFailure(errno.EINVAL)
        node = self._existing(connection, t, path)
        entries = [(domid, perms) for domid, perms in permissions]
        self._put(connection, t, path, node.value, entries)

    # Transactions.

    def transaction_start(self, connection: int) -> int:
        t = next(self._numbers)
        transactions = self.connections[connection].transactions
        transactions[t] = Transaction(dict(self.nodes), dict(self.nodes))
        return t

    def drop_transaction(self, connection: int, t: int) -> None:
        """Of it nothing is done."""
        self.connections[connection].transactions.pop(t, None)

    def transaction_end(self, connection: int, t: int) -> None:
        """Raises XenFailure (EAGAIN) where what it has seen was changed meanwhile."""
        transaction = self.connections[connection].transactions.pop(t, None)
        if transaction is None:
            raise XenFailure(errno.ENOENT)
        for path in transaction.seen:
            if self.nodes.get(path) is not transaction.start.get(path):
                raise XenFailure(errno.EAGAIN)
        for path in transaction.start.keys() - transaction.nodes.keys():
            self.nodes.pop(path, None)
        for path, node in transaction.nodes.items():
            if transaction.start.get(path) is not node:
                self.nodes[path] = node
        for path in transaction.changed:
            self._fire(path)

    # Watches.

    def watch(self, connection: int, path: str, token: str) -> None:
        """It fires once without a change."""
        watcher = self.connections[connection]
        if (path, token) in watcher.watches:
            raise XenFailure(errno.EEXIST)
        watcher.watches.append((path, token))
        self._tell(watcher, path, token)

    def unwatch(self, connection: int, path: str, token: str) -> None:
        watcher = self.connections[connection]
        if (path, token) not in watcher.watches:
            raise XenFailure(errno.ENOENT)
        watcher.watches.remove((path, token))

    def fileno(self, connection: int) -> int:
        """The fd that is readable while events wait."""
        return self.connections[connection].watch_fd

    def check_watch(self, connection: int) -> tuple[str, str]:
        """The next event, path and token. Raises XenFailure (EAGAIN) where none waits."""
        watcher = self.connections[connection]
        if not watcher.events:
            raise XenFailure(errno.EAGAIN)
        os.read(watcher.watch_fd, 1)
        return watcher.events.popleft()

    # Domains.

    def introduce(self, domid: int, gfn: int, port: int) -> None:
        """Map the domain's ring and bind its port; xenconsoled then looks at its console."""
        domain = self._hypervisor.domains.get(domid)
        if domain is None or domain.dying or port not in domain.unbound_ports:
            raise XenFailure(errno.EINVAL)
        self.introduced[domid] = (gfn, port)
        self._fire("@introduceDomain")
        if self.xenconsoled_runs:
            self.give_tty(domid)

    def release(self, domid: int) -> None:
        if self.introduced.pop(domid, None) is None:
            raise XenFailure(errno.ENOENT)
        self._fire("@releaseDomain")

    def domain_gone(self, domid: int) -> None:
        """Xen says that a domain is no more (VIRQ_DOM_EXC)."""
        if self.introduced.pop(domid, None) is not None:
            self._fire("@releaseDomain")

    def is_introduced(self, domid: int) -> bool:
        return domid in self.introduced

    def features_supported(self) -> int:
        if self.features is None:
            raise XenFailure(errno.ENOSYS)
        return self.features

    def set_features_domain(self, domid: int, features: int) -> None:
        """Before the domain is introduced."""
        if self.features is None:
            raise XenFailure(errno.ENOSYS)
        if domid in self.introduced:
            raise XenFailure(errno.EBUSY)
        self.features_of[domid] = features

    def set_domain_quota(self, domid: int, quota: str, value: int) -> None:
        """Once the domain is introduced."""
        if not self.has_quota_of_domains:
            raise XenFailure(errno.ENOSYS)
        if domid not in self.introduced:
            raise XenFailure(errno.ENOENT)
        self.quota_of.setdefault(domid, {})[quota] = value

    def give_tty(self, domid: int) -> None:
        """What xenconsoled does with a domain's console (console_create_tty, daemon/io.c)."""
        console = f"/local/domain/{domid}/console"
        if f"{console}/ring-ref" in self.nodes and f"{console}/port" in self.nodes:
            self._make(0, 0, f"{console}/tty", f"/dev/pts/{domid}")

    # Details.

    def _transaction(self, connection: int, t: int) -> Transaction | None:
        if t == 0:
            return None
        transaction = self.connections[connection].transactions.get(t)
        if transaction is None:
            raise XenFailure(errno.ENOENT)
        return transaction

    def _nodes(self, connection: int, t: int, path: str) -> dict[str, Node]:
        """The nodes, of which a transaction has seen this one. Checks the path."""
        if not _PATH.fullmatch(path):
            raise XenFailure(errno.EINVAL)
        transaction = self._transaction(connection, t)
        if transaction is None:
            return self.nodes
        transaction.seen.add(path)
        return transaction.nodes

    def _existing(self, connection: int, t: int, path: str) -> Node:
        node = self._nodes(connection, t, path).get(path)
        if node is None:
            raise XenFailure(errno.ENOENT)
        return node

    def _make(self, connection: int, t: int, path: str, value: str) -> None:
        nodes, above = self._nodes(connection, t, path), _above(path)
        if above not in nodes:
            self._make(connection, t, above, "")
        if path in nodes:
            permissions = nodes[path].permissions
        else:
            permissions = nodes[above].permissions  # a new node has those of the one above
            self._touch(connection, t, above)
        self._put(connection, t, path, value, permissions)

    def _put(
        self,
        connection: int,
        t: int,
        path: str,
        value: str,
        permissions: Sequence[tuple[int, int]],
    ) -> None:
        node = Node(value, permissions, next(self._generations))
        self._nodes(connection, t, path)[path] = node
        self._changed(connection, t, path)

    def _touch(self, connection: int, t: int, path: str) -> None:
        """The names below it are others."""
        nodes = self._nodes(connection, t, path)
        nodes[path] = nodes[path]._replace(generation=next(self._generations))

    def _changed(self, connection: int, t: int, path: str) -> None:
        transaction = self._transaction(connection, t)
        if transaction is None:
            self._fire(path)
        else:
            transaction.changed.append(path)

    def _fire(self, path: str) -> None:
        for watcher in self.connections.values():
            for watched, token in watcher.watches:
                if path == watched or path.startswith(f"{watched}/"):
                    self._tell(watcher, path, token)
                elif watched.startswith(f"{path}/") and watched not in self.nodes:
                    self._tell(watcher, watched, token)  # it went with one above it

    @staticmethod
    def _tell(watcher: Connection, path: str, token: str) -> None:
        watcher.events.append((path, token))
        os.write(watcher.wake_fd, b"w")


def _above(path: str) -> str:
    return path.rpartition("/")[0] or "/"
