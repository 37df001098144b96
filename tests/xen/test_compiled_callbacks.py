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

    def suspend(self) -> int:
        return 1

    def postcopy(self) -> int:
        return 1

    def wait_checkpoint(self) -> int:
        return 1

    def restore_results(self, store_gfn: int, console_gfn: int) -> None:
        self.calls.append((store_gfn, console_gfn))


class Broken(Recording):
    """Raises in every callback."""

    def __getattribute__(self, name: str) -> object:
        def broken(*_arguments: object) -> object:
            raise LookupError(name)

        return broken


NAMES = ("static_data_done", "checkpoint", "suspend", "postcopy", "wait_checkpoint")


def call(name: str, payload: xenguest._Payload) -> int:
    backend = load()
    xenguest._bind(backend)
    handle = backend.ffi.new_handle(payload)
    function = getattr(backend.lib, f"xlsr_{name}")
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
    call("suspend", payload)
    call("postcopy", payload)
    assert str(payload.failure) == "suspend"


def test_frames_beyond_32_bits_come_whole() -> None:
    backend, recording = load(), Recording()
    xenguest._bind(backend)
    handle = backend.ffi.new_handle(xenguest._Payload(recording))
    backend.lib.xlsr_restore_results(0x123456789A, 0xFFFFFFFFFF, handle)  # type: ignore[attr-defined]
    assert recording.calls == [(0x123456789A, 0xFFFFFFFFFF)]
