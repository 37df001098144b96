"""HVM guests come back with their device model, as xl brings them back."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from libxlsr.errors import LibxlsrError, StreamError, TargetError
from libxlsr.formats import libxl
from libxlsr.restoring.options import RestoreOptions

from . import dom0
from .guests import xl
from .hvm_guests import HvmGuest, saved_hvm_guest
from .points import spread
from .restoring import aborted_while_finishing, restore_file, was_undone
from .state import HostState
from .twins import look_at

# What the guest of the example in the tree had counted to when it was saved.
EXAMPLE_COUNT = 19
KINDS = ["tiny", "bios", "linux"]


@pytest.fixture
def hvm_guest(request: pytest.FixtureRequest) -> Iterator[HvmGuest]:
    """A saved HVM guest that does not run; destroyed afterwards if it does then."""
    made = saved_hvm_guest(request.param)
    made.destroy()
    yield made
    made.destroy()


def model_arguments(guest: HvmGuest) -> list[str]:
    """The device model's, the domain's id and the number of its fd taken out."""
    domid = str(guest.domid)
    argv = Path(f"/proc/{guest.model_pid()}/cmdline").read_text().rstrip("\0").split("\0")
    general = []
    for before, word in zip(["", *argv], argv):
        if before == "-incoming":
            word = "fd:N"
        elif before in ("-xen-domid", "-chardev", "-netdev"):
            word = word.replace(domid, "N")
        general.append(word)
    return general


def model_environment(guest: HvmGuest) -> dict[str, str]:
    """What the device model's environment has because of its guest."""
    # Without XEN_QEMU_CONSOLE_LIMIT, which libxl of Xen 4.17 sets and that of 4.20 does not.
    names = ("XEN_DOMAIN_ID", "DISPLAY", "XAUTHORITY")
    variables = Path(f"/proc/{guest.model_pid()}/environ").read_text().split("\0")
    pairs = (variable.partition("=") for variable in variables)
    return {name: value.replace(str(guest.domid), "N") for name, _, value in pairs if name in names}


@pytest.mark.parametrize("hvm_guest", spread(KINDS, {"bios"}), indirect=True)
def test_it_goes_on_and_is_like_xl_s_own(hvm_guest: HvmGuest) -> None:
    xl("restore", str(hvm_guest.image))
    hvm_guest.wait_until_it_goes_on()
    of_xl = look_at(hvm_guest)
    its_arguments, its_environment = model_arguments(hvm_guest), model_environment(hvm_guest)
    hvm_guest.destroy()
    ticks = len(hvm_guest.ticks())

    result = restore_file(hvm_guest.image)
    assert (result.guest.name, result.guest.domain_type) == (hvm_guest.name, "hvm")
    assert result.guest.domid == hvm_guest.domid
    hvm_guest.wait_until_it_goes_on()
    assert hvm_guest.qmp("query-status")["status"] == "running"
    if hvm_guest.kind == "linux":
        digests = {digest for _, digest in hvm_guest.ticks()}
        assert (len(digests), len(hvm_guest.ticks()) > ticks) == (1, True)
    ours = look_at(hvm_guest)
    assert model_arguments(hvm_guest) == its_arguments
    assert model_environment(hvm_guest) == its_environment
    assert ours.listed == of_xl.listed
    assert of_xl.unlisted_differences(ours) == {}


# Devices come back four times here, which takes minutes.
@pytest.mark.parametrize("hvm_guest", spread(KINDS, {"tiny"}), indirect=True)
def test_xl_saves_restores_and_destroys_it(hvm_guest: HvmGuest, tmp_path: Path) -> None:
    again = tmp_path / "again.save"
    before = HostState.now()

    restore_file(hvm_guest.image)
    hvm_guest.wait_until_it_goes_on()
    xl("save", hvm_guest.name, str(again))
    xl("restore", str(again))
    hvm_guest.wait_until_it_goes_on()
    assert hvm_guest.qmp("query-status")["status"] == "running"
    hvm_guest.destroy()
    restore_file(hvm_guest.image)
    hvm_guest.wait_until_it_goes_on()
    hvm_guest.destroy()
    assert HostState.now() == before


@pytest.mark.parametrize("hvm_guest", ["tiny"], indirect=True)
def test_paused(hvm_guest: HvmGuest) -> None:
    restore_file(hvm_guest.image, RestoreOptions(paused=True))
    info = dom0.xenctrl().domain_info(hvm_guest.domid)
    assert info is not None
    assert (info.paused, info.cpu_time_ns) == (True, 0)
    xl("unpause", hvm_guest.name)
    hvm_guest.wait_until_it_goes_on()


def test_the_image_in_the_tree(hvm_image: Path) -> None:
    guest = HvmGuest("tiny", "ticker", hvm_image)
    try:
        assert restore_file(hvm_image).guest.memory_kib == 4096
        assert guest.qmp("query-status")["status"] == "running"
        guest.wait_until(lambda: guest.counts() != [], "count on")
        assert guest.counts()[0] == EXAMPLE_COUNT + 1
    finally:
        guest.destroy()


def record(kind: libxl.RecordType, body: bytes, length: int | None = None) -> bytes:
    """A record; *length* is what its header says where that is not so."""
    header = struct.pack("<II", kind, len(body) if length is None else length)
    return header + body + bytes(-len(body) % 8)


def context(body: bytes, emulator: int = 2, index: int = 0, length: int | None = None) -> bytes:
    head = struct.pack("<II", emulator, index)
    return record(libxl.RecordType.EMULATOR_CONTEXT, head + body, length)


def keys(packed: bytes, emulator: int = 2, index: int = 0) -> bytes:
    head = struct.pack("<II", emulator, index)
    return record(libxl.RecordType.EMULATOR_XENSTORE_DATA, head + packed)


def pair(key: bytes) -> bytes:
    return key + b"\0value\0"


END = record(libxl.RecordType.END, b"")
GOOD_KEYS = b"physmap/f0000000/start_addr\0f1000000\0physmap/f0000000/size\0800000\0"

# What stands in place of the EMULATOR_CONTEXT and END, given QEMU's state.
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "no context": lambda _: END,
    "cut in the context": lambda state: context(state)[:2000],
    "cut behind the context's header": lambda state: context(state)[:8],
    "an empty context": lambda _: context(b"") + END,
    "a context that is no QEMU's": lambda state: context(b"XEVM" + state[4:]) + END,
    "a context without a head": lambda _: record(libxl.RecordType.EMULATOR_CONTEXT, b"") + END,
    "a context of 4 GiB": lambda state: context(state, length=0xFFFFFFFF) + END,
    "a context of nearly 4 GiB": lambda state: context(state, length=0xFFFFFFF9) + END,
    "a context that says too much": lambda state: context(state, length=len(state) + 80) + END,
    "a context that says too little": lambda state: context(state, length=len(state) - 80) + END,
    "two contexts": lambda state: context(state) * 2 + END,
    "a context of an unknown emulator": lambda state: context(state, emulator=9) + END,
    "a context of qemu-traditional": lambda state: context(state, emulator=1) + END,
    "a context of another index": lambda state: context(state, index=1) + END,
    "keys of qemu-traditional": lambda state: keys(GOOD_KEYS, emulator=1) + context(state) + END,
    "keys of another index": lambda state: keys(GOOD_KEYS, index=7) + context(state) + END,
    "keys of 2 MiB": lambda state: keys(pair(b"physmap/a") + bytes(2 << 20)) + context(state) + END,
    "a key without a value": lambda state: keys(b"physmap/a\0") + context(state) + END,
    "a key that is not terminated": lambda state: keys(b"physmap/a") + context(state) + END,
    **{
        f"the key {key[:30]!r}": (
            lambda state, key=key: keys(pair(key)) + context(state) + END  # type: ignore[misc]
        )
        for key in (
            b"state",
            b"../state",
            b"physmap/../state",
            b"physmap/../../../1/name",
            b"/local/domain/0/name",
            b"physmap",
            b"physmap/",
            b"physmap//a",
            b"physmap/" + b"a" * (64 << 10),
            b"physmap/\xc3\xa4",
            b"physmap/a b",
            b"",
        )
    },
}


def changed(image: bytes, change: Callable[[bytes], bytes]) -> bytes:
    start = image.rindex(b"QEVM\0\0\0\3") - 16
    _kind, length = struct.unpack_from("<II", image, start)
    return image[:start] + change(image[start + 16 : start + 8 + length])


# Each takes a restore up to its last record; those that are not for every run are marked slow.
EACH_RUN = {
    "cut in the context",
    "a context of nearly 4 GiB",
    "a context of qemu-traditional",
    "the key b'physmap/../state'",
}


@pytest.mark.usefixtures("unchanged_host")
@pytest.mark.parametrize("what", spread(DAMAGE, EACH_RUN))
def test_damaged_emulator_records(hvm_image: Path, tmp_path: Path, what: str) -> None:
    damaged = tmp_path / "damaged.save"
    damaged.write_bytes(changed(hvm_image.read_bytes(), DAMAGE[what]))
    with pytest.raises(StreamError):
        restore_file(damaged)


REJECTED: dict[str, Callable[[bytes], bytes]] = {
    "a part": lambda state: context(state[:2000]) + END,
    "ones": lambda state: context(b"QEVM" + b"\xff" * 1000) + END,
}


@pytest.mark.usefixtures("unchanged_host")
@pytest.mark.parametrize("what", spread(REJECTED, {"a part"}))
def test_qemu_rejects_the_state(hvm_image: Path, tmp_path: Path, what: str) -> None:
    damaged = tmp_path / "damaged.save"
    damaged.write_bytes(changed(hvm_image.read_bytes(), REJECTED[what]))
    with pytest.raises(TargetError, match=r"the device model exited with 1 \(last log line: .+\)"):
        restore_file(damaged)


def test_keys_are_written_below_the_device_model(hvm_image: Path, tmp_path: Path) -> None:
    guest = HvmGuest("tiny", "ticker", hvm_image)
    image = tmp_path / "keys.save"
    image.write_bytes(
        changed(hvm_image.read_bytes(), lambda state: keys(GOOD_KEYS) + context(state) + END)
    )
    try:
        restore_file(image)
        node = f"/local/domain/0/device-model/{guest.domid}"
        store = dom0.xenstore()
        assert store.read(f"{node}/physmap/f0000000/size") == "800000"
        assert store.get_permissions(f"{node}/physmap") == store.get_permissions(node)
    finally:
        guest.destroy()


# Surely none of these comes when all is there: the device model takes more callbacks to start.
IN_TIME = range(11)


@pytest.mark.parametrize("after", spread(range(0, 160, 10), {10}))
def test_aborted_while_it_finishes(hvm_image: Path, unchanged_host: HostState, after: int) -> None:
    ao = aborted_while_finishing(hvm_image, after)
    assert was_undone(ao, unchanged_host) or after not in IN_TIME


@pytest.mark.usefixtures("unchanged_host")
@pytest.mark.parametrize("kind", spread(("pv", "pvh"), {"pv"}))
def test_a_configuration_that_says_otherwise(hvm_image: Path, kind: str) -> None:
    with pytest.raises(LibxlsrError):
        restore_file(hvm_image, RestoreOptions(overrides=[("c_info.type", f'"{kind}"')]))
