"""The compiled module on a machine where no Xen runs."""

from __future__ import annotations

import pytest

from libxlsr.errors import BackendUnavailable
from libxlsr.xen import backend
from libxlsr.xen.xenctrl import Xenctrl
from libxlsr.xen.xenstore import Xenstore


def test_the_module_knows_its_xen() -> None:
    major, minor, *_ = backend.built_for().split(".")
    assert (int(major), int(minor)) >= (4, 16)


def test_no_hypervisor() -> None:
    with pytest.raises(BackendUnavailable, match=r"no Xen is running here.*--target image"):
        Xenctrl()


def test_no_xenstored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XENSTORED_PATH", "/nonexistent/socket")
    with pytest.raises(BackendUnavailable, match="no xenstored is running here"):
        Xenstore()
