"""One request to xenstored fails, whichever it is: one message, and everything is undone."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libxlsr.errors import TargetError
from libxlsr.xen.xenstore import Xenstore

from .points import spread
from .restoring import restore_file

pytestmark = pytest.mark.usefixtures("unchanged_host")

# A restore of the tiny PVH guest makes one request with xs_directory and one with xs_watch, 7 with
# xs_read (the last for the tty), 2 with xs_mkdir, 6 with xs_rm, and a good 50 with xs_write.
REQUESTS = spread(
    [
        *(("xs_read", number) for number in range(7)),
        ("xs_directory", 0),
        *(("xs_write", number) for number in range(0, 51, 5)),
        *(("xlsr_set_permissions", number) for number in range(0, 27, 3)),
        *(("xs_mkdir", number) for number in range(2)),
        *(("xs_rm", number) for number in range(6)),
        *(("xs_transaction_start", number) for number in range(2)),
        *(("xs_transaction_end", number) for number in range(2)),
        ("xs_introduce_domain", 0),
        ("xs_watch", 0),
    ],
    always={
        ("xs_read", 6),
        ("xs_write", 0),
        ("xs_write", 50),
        ("xlsr_set_permissions", 12),
        ("xs_mkdir", 1),
        ("xs_rm", 5),
        ("xs_transaction_end", 1),
        ("xs_introduce_domain", 0),
        ("xs_watch", 0),
    },
)


class FailingLib:
    """libxenstore, of which one function fails, once: at its call number ``number``, from 0."""

    def __init__(self, xenstore: Xenstore, function: str, number: int) -> None:
        self._lib, self._ffi = xenstore.lib, xenstore.ffi
        self._function = function
        self._calls = iter(range(number + 1))
        self._number = number

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._lib, name)
        return self._failing(function) if name == self._function else function

    def _failing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            ends_transaction = self._function == "xs_transaction_end"
            dropped = ends_transaction and arguments[2]
            if dropped or next(self._calls, None) != self._number:
                return function(*arguments)
            if ends_transaction:  # xenstored keeps none that it could not commit
                function(*arguments[:2], True)
            returns_pointer = self._function in ("xs_read", "xs_directory", "xs_check_watch")
            self._ffi.errno = errno.EIO
            return self._ffi.NULL if returns_pointer else 0

        return call


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Has one function of libxenstore fail once in the test's restore."""

    def make(function: str, number: int) -> None:
        connect = Xenstore.__init__

        def connect_failing(xenstore: Xenstore) -> None:
            connect(xenstore)
            lib: Any = FailingLib(xenstore, function, number)
            xenstore.lib = lib

        monkeypatch.setattr(Xenstore, "__init__", connect_failing)

    return make


@pytest.mark.parametrize(("function", "number"), REQUESTS)
def test_a_request_fails(
    tiny_image: Path, fail: Callable[[str, int], None], function: str, number: int
) -> None:
    fail(function, number)
    with pytest.raises(TargetError, match="xenstore: could not") as caught:
        restore_file(tiny_image)
    assert caught.value.errno == errno.EIO


@pytest.mark.slow
def test_the_connection_breaks_in_the_wait_for_a_tty(
    tiny_image: Path, fail: Callable[[str, int], None]
) -> None:
    fail("xs_check_watch", 0)
    with pytest.raises(TargetError, match="no tty within 10 s"):
        restore_file(tiny_image)


# The one watch is that for the tty, which is waited for when everything else is there.


def test_after_the_devices_were_attached(
    image_with: Callable[..., Path], fail: Callable[[str, int], None], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    with_loop = {"vdev": "xvda", "pdev_path": str(disk), "format": "raw", "script": "block"}
    image = image_with(disks=[{**with_loop, "readwrite": 1}], nics=[{"bridge": "xenbr0"}])
    fail("xs_watch", 0)
    with pytest.raises(TargetError, match="xenstore: could not watch"):
        restore_file(image)


def test_after_the_device_model_was_started(
    hvm_image: Path, fail: Callable[[str, int], None]
) -> None:
    fail("xs_watch", 0)
    with pytest.raises(TargetError, match="xenstore: could not watch"):
        restore_file(hvm_image)
