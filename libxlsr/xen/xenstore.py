"""xenstore through libxenstore: nodes, permissions, transactions, domains.

Paths and values are text. xenstore holds bytes: what is not UTF-8 comes as surrogate escapes and
goes back as the bytes that it was. A request blocks until xenstored has answered it.
Watches, which come on the event loop, are in ``libxlsr.xen.watches``.
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Callable, NamedTuple, TypeVar

from libxlsr.errors import BackendUnavailable, TargetError
from libxlsr.xen.backend import Backend, load
from libxlsr.xen.handle import Handle
from libxlsr.xen.rawlib import FFI, CData, Lib
from libxlsr.xen.xenctrl import NO_XEN_REMEDY

T = TypeVar("T")

TRANSACTION_ATTEMPTS = 100
"""How often ``transact`` tries again. libxl tries for ever; a neighbour that writes all the time
must not be able to hold a restore for ever."""


class Perm(enum.IntFlag):
    """``XS_PERM_*`` (xenstore_lib.h). Of the first entry of a node it is the others' access."""

    NONE = 0
    READ = 1
    WRITE = 2


class Permission(NamedTuple):
    """One entry of a node's permissions; the first entry's domain owns the node."""

    domid: int
    perms: Perm


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


class Nodes:
    """The operations on nodes, alone (``Xenstore``) or inside one transaction (``Transaction``)."""

    def __init__(self, owner: Xenstore, transaction: int) -> None:
        self._owner = owner
        self._t = transaction

    def read(self, path: str) -> str | None:
        """The node's value; None where there is no such node."""
        ffi, lib = self._owner.ffi, self._owner.lib
        length = ffi.new("unsigned int *")
        value = lib.xs_read(self._owner.pointer, self._t, _encode(path), length)
        if value == ffi.NULL:
            self._absent_or_raise("xs_read", f"read {path}")
            return None
        try:
            return _decode(bytes(ffi.buffer(value, length[0])))
        finally:
            lib.free(value)

    def write(self, path: str, value: str) -> None:
        """Write the node, making it and those above it where they are missing."""
        data = _encode(value)
        lib = self._owner.lib
        self._check(
            lib.xs_write(self._owner.pointer, self._t, _encode(path), data, len(data)),
            "xs_write",
            f"write {path}",
        )

    def mkdir(self, path: str) -> None:
        """Make an empty node; one that exists stays as it is."""
        lib = self._owner.lib
        self._check(
            lib.xs_mkdir(self._owner.pointer, self._t, _encode(path)), "xs_mkdir", f"make {path}"
        )

    def rm(self, path: str) -> None:
        """Remove the node and all below it; there need not be one."""
        if not self._owner.lib.xs_rm(self._owner.pointer, self._t, _encode(path)):
            self._absent_or_raise("xs_rm", f"remove {path}")

    def directory(self, path: str) -> list[str] | None:
        """The names of the nodes right below; None where there is no such node."""
        ffi, lib = self._owner.ffi, self._owner.lib
        count = ffi.new("unsigned int *")
        names = lib.xs_directory(self._owner.pointer, self._t, _encode(path), count)
        if names == ffi.NULL:
            self._absent_or_raise("xs_directory", f"list {path}")
            return None
        try:
            return [_decode(ffi.string(names[index])) for index in range(count[0])]
        finally:
            lib.free(names)

    def get_permissions(self, path: str) -> list[Permission] | None:
        """The node's permissions; None where there is no such node."""
        ffi, lib = self._owner.ffi, self._owner.lib
        count = ffi.new("unsigned int *")
        entries = lib.xs_get_permissions(self._owner.pointer, self._t, _encode(path), count)
        if entries == ffi.NULL:
            self._absent_or_raise("xs_get_permissions", f"read the permissions of {path}")
            return None
        try:
            return [
                Permission(int(entries[index].id), Perm(entries[index].perms))
                for index in range(count[0])
            ]
        finally:
            lib.free(entries)

    def set_permissions(self, path: str, permissions: Sequence[Permission]) -> None:
        """Set the node's permissions, at most 16 entries."""
        ffi, lib = self._owner.ffi, self._owner.lib
        ids = ffi.new("unsigned int[]", [entry.domid for entry in permissions])
        perms = ffi.new("unsigned int[]", [int(entry.perms) for entry in permissions])
        self._check(
            lib.xlsr_set_permissions(
                self._owner.pointer, self._t, _encode(path), ids, perms, len(permissions)
            ),
            "xs_set_permissions",
            f"set the permissions of {path}",
        )

    def walk(self, path: str) -> Iterator[tuple[str, str]]:
        """(path, value) of the node and of all below it, in xenstore's order."""
        value = self.read(path)
        if value is None:
            return
        yield path, value
        for name in self.directory(path) or ():
            yield from self.walk(f"{path.rstrip('/')}/{name}")

    def _absent_or_raise(self, call: str, doing: str) -> None:
        number = self._owner.ffi.errno
        if number != errno.ENOENT:
            raise TargetError(f"xenstore: could not {doing}", errno=number, call=call)

    def _check(self, succeeded: bool, call: str, doing: str) -> None:
        if not succeeded:
            number = self._owner.ffi.errno
            raise TargetError(f"xenstore: could not {doing}", errno=number, call=call)


class Transaction(Nodes):
    """Nodes inside one transaction; made by ``Xenstore.transaction`` and ``transact``."""


class TransactionConflict(TargetError):
    """Somebody else changed what the transaction had read or written: it must be done again."""


class Xenstore(Nodes, Handle):
    """A connection to xenstored. A context manager; closing twice is harmless."""

    def __init__(self, libraries: Backend | None = None) -> None:
        """Connect. Raises ``BackendUnavailable`` where no xenstored can be reached."""
        loaded = libraries or load()
        self.ffi: FFI = loaded.ffi
        self.lib: Lib = loaded.lib
        super().__init__(self, 0)
        self._xsh: CData | None = self.lib.xs_open(0)
        if self._xsh == self.ffi.NULL:
            self._xsh = None
            number = self.ffi.errno
            if number in (errno.ENOENT, errno.ECONNREFUSED, errno.ENXIO, errno.ENODEV):
                raise BackendUnavailable("no xenstored is running here", remedy=NO_XEN_REMEDY)
            raise TargetError("xenstored can't be reached", errno=number, call="xs_open")

    def close(self) -> None:
        """Close the connection; its watches and open transactions go with it."""
        xsh, self._xsh = self._xsh, None
        if xsh is not None:
            self.lib.xs_close(xsh)

    @property
    def pointer(self) -> CData:
        """The ``struct xs_handle *`` for the other modules of this package."""
        assert self._xsh is not None, "Xenstore is closed"
        return self._xsh

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One transaction: committed at the end of the block, dropped when it raises.

        Raises ``TransactionConflict`` where xenstored refuses the commit (EAGAIN); ``transact``
        tries again by itself.
        """
        number = self.lib.xs_transaction_start(self.pointer)
        if number == 0:
            raise TargetError(
                "xenstore: could not start a transaction",
                errno=self.ffi.errno,
                call="xs_transaction_start",
            )
        try:
            yield Transaction(self, number)
        except BaseException:
            self.lib.xs_transaction_end(self.pointer, number, True)
            raise
        if not self.lib.xs_transaction_end(self.pointer, number, False):
            kind = TransactionConflict if self.ffi.errno == errno.EAGAIN else TargetError
            raise kind(
                "xenstore: could not commit a transaction",
                errno=self.ffi.errno,
                call="xs_transaction_end",
            )

    def transact(self, body: Callable[[Transaction], T]) -> T:
        """Run ``body`` in a transaction, again from its start as often as others interfere."""
        for attempt in range(1, TRANSACTION_ATTEMPTS + 1):
            try:
                with self.transaction() as transaction:
                    return body(transaction)
            except TransactionConflict:
                if attempt == TRANSACTION_ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    # Domains.

    def domain_path(self, domid: int) -> str:
        """The domain's home, such as "/local/domain/7"."""
        path = self.lib.xs_get_domain_path(self.pointer, domid)
        if path == self.ffi.NULL:
            raise TargetError(
                f"xenstore: could not ask for the path of domain {domid}",
                errno=self.ffi.errno,
                call="xs_get_domain_path",
            )
        try:
            return _decode(self.ffi.string(path))
        finally:
            self.lib.free(path)

    def introduce_domain(self, domid: int, gfn: int, port: int) -> None:
        """Connect the domain to xenstored: its ring's guest frame and its event channel."""
        self._check(
            self.lib.xs_introduce_domain(self.pointer, domid, gfn, port),
            "xs_introduce_domain",
            f"introduce domain {domid}",
        )

    def features_supported(self) -> int | None:
        """What xenstored can offer a domain (``XENSTORE_SERVER_FEATURE_*``, io/xs_wire.h), as a
        bit mask; None where it doesn't say (before Xen 4.21)."""
        features = self.ffi.new("unsigned int *")
        if not self.lib.xlsr_get_features_supported(self.pointer, features):
            return None
        return int(features[0])

    def set_features_domain(self, domid: int, features: int) -> None:
        """Offer the domain these features only. Before it is introduced."""
        self._check(
            self.lib.xlsr_set_features_domain(self.pointer, domid, features),
            "xs_set_features_domain",
            f"set the features of domain {domid}",
        )

    def set_domain_quota(self, domid: int, quota: str, value: int) -> bool:
        """Set one of the domain's quota, such as "nodes". Once it is introduced.

        False where xenstored has no quota for single domains (before Xen 4.22, oxenstored).
        """
        if self.lib.xlsr_set_domain_quota(self.pointer, domid, _encode(quota), value):
            return True
        if self.ffi.errno == errno.ENOSYS:
            return False
        raise TargetError(
            f"xenstore: could not set the quota {quota} of domain {domid} to {value}",
            errno=self.ffi.errno,
            call="xs_set_domain_quota",
        )

    def release_domain(self, domid: int) -> None:
        """Disconnect the domain. It need not have been introduced."""
        if not self.lib.xs_release_domain(self.pointer, domid):
            self._absent_or_raise("xs_release_domain", f"release domain {domid}")

    def is_domain_introduced(self, domid: int) -> bool:
        """Whether xenstored is connected to the domain."""
        return bool(self.lib.xs_is_domain_introduced(self.pointer, domid))
