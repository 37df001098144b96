"""What a caller is told where the compiled module, or its Xen, is missing."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest

from libxlsr.errors import BackendUnavailable
from libxlsr.xen import backend


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_loaded", None)


def fail_with(monkeypatch: pytest.MonkeyPatch, error: ImportError) -> None:
    def import_module(name: str) -> ModuleType:
        raise error

    monkeypatch.setattr(importlib, "import_module", import_module)


@pytest.mark.usefixtures("unloaded")
def test_without_the_module_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libxlsr.xen._xen", None)
    with pytest.raises(BackendUnavailable, match="built without Xen") as caught:
        backend.load()
    assert "libxen-dev" in str(caught.value)
    assert not backend.available()


@pytest.mark.usefixtures("unloaded")
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "libxenctrl.so.4.17: cannot open shared object file: No such file or directory"
    fail_with(monkeypatch, ImportError(text))
    with pytest.raises(BackendUnavailable, match=r"another Xen: libxenctrl\.so\.4\.17 is not on"):
        backend.load()


@pytest.mark.usefixtures("unloaded")
def test_a_missing_cffi_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ModuleNotFoundError("No module named '_cffi_backend'", name="_cffi_backend")
    fail_with(monkeypatch, error)
    with pytest.raises(BackendUnavailable, match="pip install cffi"):
        backend.load()


@pytest.mark.usefixtures("unloaded")
def test_any_other_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, ImportError("undefined symbol: xc_domain_restore"))
    with pytest.raises(BackendUnavailable, match="undefined symbol: xc_domain_restore"):
        backend.load()


@pytest.mark.parametrize("running", ["4.17.0", "4.17.5", "4.17.5-pre"])
def test_the_same_release_will_do(monkeypatch: pytest.MonkeyPatch, running: str) -> None:
    monkeypatch.setattr(backend, "built_for", lambda _backend: "4.17.0")
    backend.require_same_release(running)


@pytest.mark.parametrize("running", ["4.18.0", "4.1.7", "5.17.0", "4.170.0"])
def test_another_release_is_refused(monkeypatch: pytest.MonkeyPatch, running: str) -> None:
    monkeypatch.setattr(backend, "built_for", lambda _backend: "4.17.0")
    with pytest.raises(BackendUnavailable, match=f"built for Xen 4.17.0, but Xen {running} is"):
        backend.require_same_release(running)


@pytest.mark.parametrize(
    "module",
    ["toollog", "xenctrl", "scheduling", "xenguest", "xenstore", "watches", "hostinfo", "rawlib"],
)
def test_importing_takes_no_xen(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, "libxlsr.xen._xen", None)
    monkeypatch.delitem(sys.modules, f"libxlsr.xen.{module}", raising=False)
    importlib.import_module(f"libxlsr.xen.{module}")
