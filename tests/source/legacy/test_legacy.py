"""Images of Xen 4.5 and older restore as they are, and become today's."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

import libxlsr
from libxlsr.events import Context, run
from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.formats.page_types import XEN_DOMCTL_PFINFO_L1TAB, XEN_DOMCTL_PFINFO_XTAB
from libxlsr.restoring.image.target import ImageTarget
from libxlsr.restoring.operation import restore_ao
from libxlsr.source.legacy import format as legacy
from libxlsr.testing.legacy import LegacyImage
from libxlsr.testing.restored import restored_state
from libxlsr.tools.convert.operation import convert
from libxlsr.tools.extract.operation import extract
from libxlsr.tools.extract.request import Request
from libxlsr.tools.verify.operation import verify
from tests.tools.verify import xen_utils

TYPES = {3: XEN_DOMCTL_PFINFO_XTAB, 7: XEN_DOMCTL_PFINFO_L1TAB}

IMAGES: dict[str, Any] = {
    f"{guest} {header or 'bare'} {8 * width}-bit toolstack": {
        "guest": guest,
        "width": width,
        "xl_header": header,
    }
    for guest in ("pv", "hvm")
    for width in (4, 8)
    for header in ("json", "text", None)
}
IMAGES["32-bit PV"] = {"guest": "pv", "guest_width": 4, "types": TYPES, "vcpus": [0, 2, 70]}
IMAGES["32-bit PV, 32-bit"] = {"guest": "pv", "guest_width": 4, "width": 4, "pages": 2500}
IMAGES["no XSAVE"] = {"guest": "pv", "xsave": 0, "extended": False, "tsc": False}
IMAGES["live"] = {"guest": "hvm", "pages": 2100, "dirtied": [range(50, 1500), [7, 3], [7]]}
IMAGES["Remus"] = {"guest": "hvm", "qemu_signature": legacy.QEMU_WITH_LENGTH[1]}
IMAGES["no length"] = {"guest": "hvm", "qemu_signature": legacy.QEMU_TO_EOF}
IMAGES["no keys"] = {"guest": "hvm", "physmap": []}


def restored(source: Path, output: Path, **options: Any) -> dict[str, bytes]:
    libxlsr.restore(source, libxlsr.RestoreOptions("image", output, **options))
    return restored_state(output)


def needs_option(options: dict[str, Any]) -> bool:
    """A 32-bit toolstack's image of an HVM guest can't be told without its xl header."""
    return options["guest"] == "hvm" and options.get("width") == 4 and not options["xl_header"]


@pytest.mark.parametrize("name", IMAGES)
def test_restore(name: str, tmp_path: Path) -> None:
    image = LegacyImage(**IMAGES[name])
    (tmp_path / "image").write_bytes(image.build())
    state = restored(tmp_path / "image", tmp_path / "guest", legacy=needs_option(IMAGES[name]))

    for gfn in range(image.pages):
        if image.types.get(gfn) != XEN_DOMCTL_PFINFO_XTAB:
            page = state["memory"][gfn * PAGE_SIZE : (gfn + 1) * PAGE_SIZE]
            assert page == image.page(gfn), f"frame {gfn}"
    types = bytes(0x80 | image.types.get(gfn, 0) for gfn in range(image.pages))
    assert state["page_types"] == types
    assert ("config.json" in state) == (image.xl_header == "json")
    assert ("tsc_info.json" in state) == image.tsc
    if image.guest == "pv":
        check_pv(image, state)
    else:
        check_hvm(image, state)


def check_pv(image: LegacyImage, state: dict[str, bytes]) -> None:
    width = image.guest_width
    levels = {4: 3, 8: 4}[width]
    assert json.loads(state["pv_info.json"]) == {"guest_width": width, "pt_levels": levels}
    assert state["shared_info"] == b"\x5a" * PAGE_SIZE
    for vcpu in image.vcpus:
        basic = state[f"vcpus/{vcpu}/basic"]
        assert basic == image.vcpu_part(vcpu, len(basic), 1)
        if image.extended:
            assert state[f"vcpus/{vcpu}/extended"] == image.vcpu_part(vcpu, 128, 2)
        if image.xsave:
            assert state[f"vcpus/{vcpu}/xsave"] == image.vcpu_part(vcpu, image.xsave, 3)
    vcpus = {int(name.split("/")[1]) for name in state if name.startswith("vcpus/")}
    assert vcpus == set(image.vcpus)


def check_hvm(image: LegacyImage, state: dict[str, bytes]) -> None:
    assert state["hvm_context"] == image.hvm_context()
    assert state["emulator/context"] == image.qemu
    params = {param["index"]: param["value"] for param in json.loads(state["hvm_params.json"])}
    assert params[1] == image.pages - 1  # HVM_PARAM_STORE_PFN
    assert params[17] == 0x1002  # HVM_PARAM_CONSOLE_PFN, the third chunk
    assert len(params) == 14
    if image.physmap:
        keys = json.loads(state["emulator/xenstore.json"])["keys"]
        assert keys == {
            "physmap/f0000000/start_addr": "f0010000",
            "physmap/f0000000/size": "800000",
            "physmap/f0000000/name": "vga.vram",
        }
    else:
        assert "emulator/xenstore.json" not in state


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, options in IMAGES.items()
        if "qemu_signature" not in options and options.get("xl_header") is None
    ],
)
def test_agreement_with_xens_converter(name: str, tmp_path: Path) -> None:
    """Without an xl header: with one, Xen's fails under Python 3 ("No xl header")."""
    program = xen_utils.script("convert-legacy-stream")
    if program is None:
        pytest.skip("convert-legacy-stream is not installed (tests/tools/verify/xen_utils.py)")
    image = LegacyImage(**{**IMAGES[name], "xl_header": None})
    (tmp_path / "image").write_bytes(image.build())
    arguments = ["-i", tmp_path / "image", "-o", tmp_path / "xens", "-f", "libxl"]
    subprocess.run(
        [str(program), *map(str, arguments), "-w", str(8 * image.width), "-g", image.guest],
        env=xen_utils.environment(),
        check=True,
        capture_output=True,
        timeout=60,
    )
    xens = restored(tmp_path / "xens", tmp_path / "of xens")
    ours = restored(tmp_path / "image", tmp_path / "ours", legacy=image.width == 4)
    for state in (xens, ours):  # theirs come in two records, in the order of arrival
        if "hvm_params.json" in state:
            params = json.loads(state.pop("hvm_params.json"))
            state["params"] = repr(sorted(param["index"] for param in params)).encode()
            state["values"] = repr(sorted(param["value"] for param in params)).encode()
    assert ours == xens


@pytest.mark.parametrize("name", IMAGES)
def test_conversion(name: str, tmp_path: Path) -> None:
    option = needs_option(IMAGES[name])
    (tmp_path / "image").write_bytes(LegacyImage(**IMAGES[name]).build())
    convert(tmp_path / "image", tmp_path / "today", legacy=option)
    before = restored(tmp_path / "image", tmp_path / "before", legacy=option)
    assert restored(tmp_path / "today", tmp_path / "after") == before
    findings = verify(tmp_path / "today").findings
    assert [str(found) for found in findings if found.severity.value == "error"] == []


def test_what_can_not_be_told_by_its_head(tmp_path: Path) -> None:
    image = LegacyImage("hvm", width=4, xl_header=None)
    (tmp_path / "image").write_bytes(image.build())
    with pytest.raises(libxlsr.StreamError, match="--legacy"):
        restored(tmp_path / "image", tmp_path / "guest")
    (tmp_path / "image").write_bytes(b"This is no image of any kind.")
    with pytest.raises(libxlsr.StreamError, match="this is no Xen image"):
        restored(tmp_path / "image", tmp_path / "guest", legacy=True)
    (tmp_path / "image").write_bytes(b"LinuxGuestRecord")
    with pytest.raises(libxlsr.StreamError, match="xend"):
        restored(tmp_path / "image", tmp_path / "guest", legacy=True)


def test_compressed(tmp_path: Path) -> None:
    image = LegacyImage("pv", pages=100)
    (tmp_path / "image").write_bytes(gzip.compress(image.build()))
    extract(tmp_path / "image", tmp_path / "raw", Request("raw"))
    assert (tmp_path / "raw").read_bytes() == b"".join(image.page(gfn) for gfn in range(100))
    (tmp_path / "image").write_bytes(gzip.compress(image.build() + b"more"))
    with pytest.raises(libxlsr.StreamError, match="something follows"):
        restored(tmp_path / "image", tmp_path / "guest")
    data = bytearray(gzip.compress(image.build()))
    data[-6] ^= 1
    (tmp_path / "image").write_bytes(data)
    with pytest.raises(libxlsr.StreamError, match="gzip data is damaged"):
        restored(tmp_path / "image", tmp_path / "guest")
    assert sorted(os.listdir(tmp_path)) == ["image", "raw"]


@pytest.mark.parametrize("guest", ["pv", "hvm"])
def test_what_follows(guest: str, tmp_path: Path) -> None:
    data = LegacyImage(guest).build()
    (tmp_path / "image").write_bytes(data + b"more")
    with pytest.raises(libxlsr.StreamError, match="something follows") as raised:
        restored(tmp_path / "image", tmp_path / "guest")
    assert raised.value.offset == len(data)
    with open(tmp_path / "image", "rb", buffering=0) as file:
        libxlsr.restore(file.fileno(), target="image", output=tmp_path / "guest")
        assert file.read() == b"more"


def test_from_a_pipe_byte_by_byte(tmp_path: Path) -> None:
    data = LegacyImage("hvm", pages=3).build()
    read_end, write_end = os.pipe()

    def feed() -> None:
        for byte in data:
            os.write(write_end, bytes([byte]))
        os.close(write_end)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        libxlsr.restore(read_end, target="image", output=tmp_path / "guest")
    finally:
        os.close(read_end)
        thread.join()


def test_an_abort_while_the_sender_is_silent(tmp_path: Path) -> None:
    data = LegacyImage("hvm", pages=300).build()
    read_end, write_end = os.pipe()
    os.write(write_end, data[:30_000])
    ctx = Context()

    def stop(progress: libxlsr.Progress) -> None:
        if progress.phase is libxlsr.Phase.MEMORY:
            ao.abort()

    ao = restore_ao(ctx, read_end, target=ImageTarget(ctx, tmp_path / "guest"), on_progress=stop)
    run(ctx, lambda: ao.done)
    with pytest.raises(libxlsr.Aborted):
        ao.result()
    assert ctx.registered() == []
    assert os.listdir(tmp_path) == []
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize("guest", ["pv", "hvm"])
@pytest.mark.parametrize("part", range(12))
def test_truncated(guest: str, part: int, tmp_path: Path) -> None:
    data = LegacyImage(guest, pages=8).build()
    (tmp_path / "image").write_bytes(data[: 1 + (len(data) - 2) * part // 11])
    with pytest.raises(libxlsr.StreamError):
        restored(tmp_path / "image", tmp_path / "guest")
    assert os.listdir(tmp_path) == ["image"]
