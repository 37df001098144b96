"""libxenstore: the functions that `libxlsr.xen.rawlib` lists, over a fake xenstored."""

from __future__ import annotations

from typing import Any, Callable

from libxlsr.testing.fake_xen.libxenctrl import Calling


class FakeXenstore(Calling):
    """libxenstore. A ``struct xs_handle *`` is the number of a connection.

    A method without a comment of its own is xenstored's of the same name.
    """

    XS_PERM_NONE, XS_PERM_READ, XS_PERM_WRITE = 0, 1, 2
    HAS_XS_SET_FEATURES_DOMAIN = HAS_XS_SET_DOMAIN_QUOTA = 0

    def _request(self, name: str, path: bytes, body: Callable[[str], Any], failed: Any) -> Any:
        text = path.decode("latin-1")
        return self.attempt(name, text, lambda: body(text), failed)

    def _succeeds(self, name: str, path: bytes, body: Callable[[str], Any]) -> bool:
        def true(text: str) -> bool:
            body(text)
            return True

        return bool(self._request(name, path, true, False))

    def xs_open(self, _flags: int) -> Any:
        return self.attempt("xs_open", "", self.state.xenstored.open, None)

    def xs_close(self, xsh: int) -> None:
        self.state.xenstored.close(xsh)

    def xs_read(self, xsh: int, t: int, path: bytes, length: list[int]) -> Any:
        """The value, and its length in ``length``."""
        store = self.state.xenstored
        value = self._request("xs_read", path, lambda name: store.read(xsh, t, name), None)
        if value is None:
            return None
        raw = value.encode("latin-1")
        length[0] = len(raw)
        return raw + b"\0"

    def xs_directory(self, xsh: int, t: int, path: bytes, num: list[int]) -> Any:
        """The names, and their number in ``num``."""
        store = self.state.xenstored
        names = self._request(
            "xs_directory", path, lambda name: store.directory(xsh, t, name), None
        )
        if names is None:
            return None
        num[0] = len(names)
        return [name.encode("latin-1") for name in names]

    def xs_write(self, xsh: int, t: int, path: bytes, data: bytes, length: int) -> bool:
        store, value = self.state.xenstored, data[:length].decode("latin-1")
        return self._succeeds("xs_write", path, lambda name: store.write(xsh, t, name, value))

    def xs_mkdir(self, xsh: int, t: int, path: bytes) -> bool:
        store = self.state.xenstored
        return self._succeeds("xs_mkdir", path, lambda name: store.mkdir(xsh, t, name))

    def xs_rm(self, xsh: int, t: int, path: bytes) -> bool:
        store = self.state.xenstored
        return self._succeeds("xs_rm", path, lambda name: store.rm(xsh, t, name))

    def xs_get_permissions(self, xsh: int, t: int, path: bytes, num: list[int]) -> Any:
        """``struct xs_permissions``, and their number in ``num``."""
        store = self.state.xenstored
        found = self._request(
            "xs_get_permissions", path, lambda name: store.get_permissions(xsh, t, name), None
        )
        if found is None:
            return None
        num[0] = len(found)
        return [Entry(domid, perms) for domid, perms in found]

    def xlsr_set_permissions(
        self, xsh: int, t: int, path: bytes, ids: list[int], perms: list[int], count: int
    ) -> bool:
        store, entries = self.state.xenstored, list(zip(ids[:count], perms[:count]))
        return self._succeeds(
            "xs_set_permissions", path, lambda name: store.set_permissions(xsh, t, name, entries)
        )

    def xs_transaction_start(self, xsh: int) -> int:
        """0 where it fails."""
        store = self.state.xenstored
        start = "xs_transaction_start"
        return int(self.attempt(start, "", lambda: store.transaction_start(xsh), 0))

    def xs_transaction_end(self, xsh: int, t: int, abort: bool) -> bool:
        """An aborted one can't fail."""
        store = self.state.xenstored
        if abort:
            store.drop_transaction(xsh, t)
            return True
        done = self._succeeds(
            "xs_transaction_end", b"", lambda _name: store.transaction_end(xsh, t)
        )
        if not done:
            store.drop_transaction(xsh, t)
        return done

    def xs_watch(self, xsh: int, path: bytes, token: bytes) -> bool:
        store = self.state.xenstored
        return self._succeeds("xs_watch", path, lambda name: store.watch(xsh, name, token.decode()))

    def xs_unwatch(self, xsh: int, path: bytes, token: bytes) -> bool:
        store = self.state.xenstored
        return self._succeeds(
            "xs_unwatch", path, lambda name: store.unwatch(xsh, name, token.decode())
        )

    def xs_fileno(self, xsh: int) -> int:
        store = self.state.xenstored
        return int(self.attempt("xs_fileno", "", lambda: store.fileno(xsh), -1))

    def xs_check_watch(self, xsh: int) -> Any:
        """Path and token; NULL and EAGAIN where no event waits."""
        store = self.state.xenstored
        event = self.attempt("xs_check_watch", "", lambda: store.check_watch(xsh), None)
        return None if event is None else [text.encode("latin-1") for text in event]

    def xs_introduce_domain(self, _xsh: int, domid: int, gfn: int, port: int) -> bool:
        store, about = self.state.xenstored, str(domid).encode()
        return self._succeeds(
            "xs_introduce_domain", about, lambda _name: store.introduce(domid, gfn, port)
        )

    def xs_release_domain(self, _xsh: int, domid: int) -> bool:
        store, about = self.state.xenstored, str(domid).encode()
        return self._succeeds("xs_release_domain", about, lambda _name: store.release(domid))

    def xs_is_domain_introduced(self, _xsh: int, domid: int) -> bool:
        return bool(self.state.xenstored.is_introduced(domid))

    def xs_get_domain_path(self, _xsh: int, domid: int) -> Any:
        path = f"/local/domain/{domid}".encode()
        return self.attempt("xs_get_domain_path", domid, lambda: path, None)

    def xlsr_get_features_supported(self, _xsh: int, features: list[int]) -> bool:
        def fill(_name: str) -> None:
            features[0] = self.state.xenstored.features_supported()

        return self._succeeds("xs_get_features_supported", b"", fill)

    def xlsr_set_features_domain(self, _xsh: int, domid: int, features: int) -> bool:
        store, about = self.state.xenstored, str(domid).encode()
        return self._succeeds(
            "xs_set_features_domain",
            about,
            lambda _name: store.set_features_domain(domid, features),
        )

    def xlsr_set_domain_quota(self, _xsh: int, domid: int, quota: bytes, value: int) -> bool:
        store, about = self.state.xenstored, str(domid).encode()
        return self._succeeds(
            "xs_set_domain_quota",
            about,
            lambda _name: store.set_domain_quota(domid, quota.decode(), value),
        )

    def free(self, _pointer: Any) -> None:
        pass


class Entry:
    """``struct xs_permissions``."""

    def __init__(self, domid: int, perms: int) -> None:
        self.id = domid
        self.perms = perms
