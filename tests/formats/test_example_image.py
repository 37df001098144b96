"""A real image, saved by xl on Xen 4.17: every part of it comes back byte for byte."""

from __future__ import annotations

import lzma

import pytest

from libxlsr.formats import libxc, libxl, page_data, xl
from libxlsr.formats.hvm_context import HvmContext
from libxlsr.formats.hvm_params import HvmParams, hvm_param_name
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_order import RecordOrder
from libxlsr.formats.records import decode_libxc_body
from libxlsr.testing.parts import Part, join, split
from tests.paths import EXAMPLE


@pytest.fixture(scope="module")
def image() -> bytes:
    return lzma.decompress(EXAMPLE.read_bytes())


@pytest.fixture(scope="module")
def parts(image: bytes) -> list[Part]:
    return split(image)


def body_of(parts: list[Part], name: str) -> bytes:
    return next(part for part in parts if part.name == name).body_bytes()


def test_the_image_splits_and_joins(image: bytes, parts: list[Part]) -> None:
    assert join(parts) == image


def test_headers_come_back(parts: list[Part]) -> None:
    header = xl.Header.decode(body_of(parts, "xl header"))
    assert header.encode() == body_of(parts, "xl header")
    optional = body_of(parts, "xl optional data")
    config = xl.decode_optional_data(header, optional)
    assert xl.OptionalData.decode(optional).encode() == optional
    assert (config.name, config.domain_type, config.max_memkb) == ("ticker", "hvm", 4096)
    for name, decoder in (
        ("libxl header", libxl.Header),
        ("libxc image header", libxc.ImageHeader),
        ("libxc domain header", libxc.DomainHeader),
    ):
        data = body_of(parts, name)
        assert decoder.decode(data).encode() == data


def test_every_record_comes_back_and_stands_in_order(parts: list[Part]) -> None:
    domain_header = libxc.DomainHeader.decode(body_of(parts, "libxc domain header"))
    assert (domain_header.xen_major, domain_header.xen_minor) == (4, 17)
    order = RecordOrder(3, domain_header)
    frames = pages = 0
    for part in parts:
        data = part.body_bytes()
        if part.layer != "libxc" or part.type is None:
            continue
        order.check(part.type, 0)
        if part.is_page_data:
            prefix = page_data.prefix_length(data[:8], 0, len(data))
            decoded = page_data.decode_pfns(data[:prefix], 0, len(data))
            assert decoded.encode() == data[:prefix]
            assert sum(number for _, number in decoded.data_runs()) == decoded.data_pages
            frames += decoded.count
            pages += decoded.data_pages
        else:
            assert decode_libxc_body(RecordType(part.type), data).encode() == data
    assert frames == 1020 * 1024
    assert pages * 4096 <= sum(len(part.body) for part in parts)


def test_what_the_hardware_state_says(parts: list[Part]) -> None:
    context = HvmContext.decode(body_of(parts, "HVM_CONTEXT"))
    assert context.gtsc_khz == 2_299_999
    assert context.cpuid == 0x60FB1
    assert context.entries[1].name == "CPU"
    params = HvmParams.decode(body_of(parts, "HVM_PARAMS"))
    named = {hvm_param_name(index): value for index, value in params.params}
    assert named["STORE_PFN"] == 0xFEFFC
    assert "param 0x63" not in named
    assert hvm_param_name(99) == "param 0x63"


def test_the_device_model_state_comes_back(parts: list[Part]) -> None:
    data = body_of(parts, "EMULATOR_CONTEXT")
    decoded = libxl.EmulatorContext.decode(data)
    assert decoded.emulator_id == libxl.EMULATOR_QEMU_UPSTREAM
    assert decoded.context.startswith(b"QEVM")
    assert decoded.encode() == data
