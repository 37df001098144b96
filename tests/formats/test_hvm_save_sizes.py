"""The lengths by which an HVM context's entries are taken are those by which they are decoded."""

from __future__ import annotations

import pytest

from libxlsr.errors import StreamError
from libxlsr.formats.hvm_context import (
    HVM_SAVE_CODE_CPU,
    HVM_SAVE_CODE_CPU_MSR,
    HVM_SAVE_CODE_CPU_XSAVE,
    HVM_SAVE_NAMES,
    HVM_SAVE_SIZES,
)
from libxlsr.guest_state import hvm_cpu
from libxlsr.guest_state.hvm_devices import decode_device

VARYING = {HVM_SAVE_CODE_CPU, HVM_SAVE_CODE_CPU_XSAVE, HVM_SAVE_CODE_CPU_MSR}
GROWN = {code for code, (least, most) in HVM_SAVE_SIZES.items() if least != most} - VARYING


def test_every_type_with_a_state_has_a_length() -> None:
    assert set(HVM_SAVE_SIZES) == set(HVM_SAVE_NAMES) - {0, 1}


def test_a_cpus() -> None:
    assert HVM_SAVE_SIZES[HVM_SAVE_CODE_CPU] == hvm_cpu.SIZES


@pytest.mark.parametrize("typecode", sorted(set(HVM_SAVE_SIZES) - VARYING))
def test_a_devices(typecode: int) -> None:
    name, (least, most) = HVM_SAVE_NAMES[typecode], HVM_SAVE_SIZES[typecode]
    assert most is not None
    whole = decode_device(name, bytes(most))
    assert whole
    assert decode_device(name, bytes(most + 64)) == whole, "a field lies behind its end"
    with pytest.raises(StreamError):
        decode_device(name, bytes(least - 1))


@pytest.mark.parametrize("typecode", sorted(GROWN))
def test_a_devices_that_has_grown(typecode: int) -> None:
    name, (least, most) = HVM_SAVE_NAMES[typecode], HVM_SAVE_SIZES[typecode]
    assert most is not None
    shortest, shorter, whole = (decode_device(name, bytes(n)) for n in (least, most - 8, most))
    assert set(shortest or ()) <= set(shorter or ()) < set(whole or ())


def test_the_local_apic_of_older_and_of_newer_xens() -> None:
    newest = bytes(range(32))
    fields = ["apic_base_msr", "disabled", "timer_divisor", "tdt_msr", "pending_esr"]
    assert list(decode_device("LAPIC", newest) or ()) == fields
    assert list(decode_device("LAPIC", newest[:24]) or ()) == fields[:4]
    assert decode_device("LAPIC", newest[:16]) == {
        "apic_base_msr": 0x0706050403020100,
        "disabled": 0x0B0A0908,
        "timer_divisor": 0x0F0E0D0C,
    }


@pytest.mark.parametrize("typecode", [HVM_SAVE_CODE_CPU_XSAVE, HVM_SAVE_CODE_CPU_MSR])
def test_one_that_varies(typecode: int) -> None:
    assert decode_device(HVM_SAVE_NAMES[typecode], bytes(HVM_SAVE_SIZES[typecode][0])) is not None
