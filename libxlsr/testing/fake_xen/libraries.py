"""Xen's libraries over a fake host, as the bindings take them."""

from __future__ import annotations

from typing import NamedTuple, cast

from libxlsr.testing.fake_xen.ffi import FakeFFI
from libxlsr.testing.fake_xen.libxenguest import FakeXenguest
from libxlsr.testing.fake_xen.libxenlight import FakeXenlight
from libxlsr.testing.fake_xen.libxenstore import FakeXenstore
from libxlsr.testing.fake_xen.state import HostState
from libxlsr.xen.backend import Backend, XenlightBackend
from libxlsr.xen.rawlib import FFI, Lib, XenlightLib


class FakeLib(FakeXenguest, FakeXenstore):
    """The ``lib`` of the compiled module."""


class Libraries(NamedTuple):
    """What `libxlsr.xen` gets instead of the two compiled modules."""

    backend: Backend
    libxenlight: XenlightBackend


def libraries(state: HostState) -> Libraries:
    """Those that reach the state, in this process or in another."""
    ffi = FakeFFI()
    typed = cast(FFI, ffi)
    return Libraries(
        Backend(typed, cast(Lib, FakeLib(ffi, state))),
        XenlightBackend(typed, cast(XenlightLib, FakeXenlight(ffi, state))),
    )
