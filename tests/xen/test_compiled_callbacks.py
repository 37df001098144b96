"""libxenguest's callbacks into Python: called through C, without libxenguest."""

from __future__ import annotations

import pytest

from libxlsr.xen import xenguest
from libxlsr.xen.backend import load
from libxlsr.xen.xenguest import MissingStaticData


class Recording:
    """Answers every callback with success, and remembers it."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def static_data_done(self, missing: MissingStaticData) -> None:
        self.calls.append(missing)

    def checkpoint(self) -> int:
        self.calls.append("checkpoint")
        return 1


class Broken(Recording):
    """Raises in every callback."""

    def __getattribute__(self, name: str) -> object:
        def broken(*_arguments: object) -> object:
            raise LookupError(name)

        return broken


NAMES = ("static_data_done", "checkpoint")


def call(name: str, payload: xenguest._Payload) -> int:
    backend = load()
    xenguest._bind(backend)
    handle = backend.ffi.new_handle(payload)
    function = getattr(backend.lib, f"xlsr_restore_{name}")
    arguments = (3,) if name == "static_data_done" else ()
    return int(function(*arguments, handle))


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_reaches_c(name: str) -> None:
    payload = xenguest._Payload(Recording())
    assert call(name, payload) == (0 if name == "static_data_done" else 1)
    assert payload.failure is None


def test_what_the_stream_lacks_is_told() -> None:
    recording = Recording()
    call("static_data_done", xenguest._Payload(recording))
    assert recording.calls == [MissingStaticData.CPUID | MissingStaticData.MSR]


@pytest.mark.parametrize("name", NAMES)
def test_an_exception_makes_c_give_up_and_is_kept(name: str) -> None:
    payload = xenguest._Payload(Broken())
    assert call(name, payload) == (-1 if name == "static_data_done" else 0)
    assert isinstance(payload.failure, LookupError)


def test_the_first_exception_is_kept() -> None:
    payload = xenguest._Payload(Broken())
    call("static_data_done", payload)
    call("checkpoint", payload)
    assert str(payload.failure) == "static_data_done"
