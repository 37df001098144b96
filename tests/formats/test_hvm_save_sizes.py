"""The lengths by which an HVM context's entries are taken are those by which they are decoded."""

from __future__ import annotations

import pytest

from libxlsr.errors import StreamError
from libxlsr.formats import hvm_cpu
from libxlsr.formats.hvm_context import (
    HVM_SAVE_CODE_CPU,
    HVM_SAVE_CODE_CPU_MSR,
    HVM_SAVE_CODE_CPU_XSAVE,
    HVM_SAVE_NAMES,
    HVM_SAVE_SIZES,
)
from libxlsr.formats.hvm_devices import decode_device

VARYING = {HVM_SAVE_CODE_CPU, HVM_SAVE_CODE_CPU_XSAVE, HVM_SAVE_CODE_CPU_MSR}


def test_every_type_with_a_state_has_a_length() -> None:
    assert set(HVM_SAVE_SIZES) == set(HVM_SAVE_NAMES) - {0, 1}


def test_a_cpus() -> None:
    assert HVM_SAVE_SIZES[HVM_SAVE_CODE_CPU] == hvm_cpu.SIZES


@pytest.mark.parametrize("typecode", sorted(set(HVM_SAVE_SIZES) - VARYING))
def test_a_devices(typecode: int) -> None:
    name, most = HVM_SAVE_NAMES[typecode], HVM_SAVE_SIZES[typecode][1]
    assert most is not None
    assert decode_device(name, bytes(most)) is not None
    if name != "LAPIC_REGS":  # of which the last bytes are reserved
        with pytest.raises(StreamError):
            decode_device(name, bytes(most - 1))


@pytest.mark.parametrize("typecode", [HVM_SAVE_CODE_CPU_XSAVE, HVM_SAVE_CODE_CPU_MSR])
def test_one_that_varies(typecode: int) -> None:
    assert decode_device(HVM_SAVE_NAMES[typecode], bytes(HVM_SAVE_SIZES[typecode][0])) is not None
