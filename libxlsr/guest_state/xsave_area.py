"""What FXSAVE and XSAVE store of a processor's FPU and vector registers.

::

    FXSAVE         fcw u16, fsw u16, ftw u8, reserved u8, fop u16, fip u64, fdp u64, mxcsr u32,
                   mxcsr_mask u32, st0-st7 and xmm0-xmm15 of 16 bytes each, u8[96] for software
    XSAVE          what FXSAVE stores, then  xstate_bv u64, xcomp_bv u64, reserved u8[48], and the
                   components that xstate_bv names, which are left alone here

Source: Intel SDM, volume 1, 10.5.1 and 13.4. Xen has the first in vcpu_guest_context and
hvm_hw_cpu, the second in hvm_hw_cpu_xsave and behind two words in what XEN_DOMCTL_getvcpuextstate
returns (xen/include/public/arch-x86/xen.h, hvm/save.h, ../domctl.h).
"""

from __future__ import annotations

import struct

from libxlsr.errors import StreamError
from libxlsr.formats.framing import Buffer

FXSAVE_SIZE = 512
XSAVE_HEADER_SIZE = 64

_REGISTERS = (*(f"st{number}" for number in range(8)), *(f"xmm{number}" for number in range(16)))
_NAMES = ("fcw", "fsw", "ftw", "fop", "fip", "fdp", "mxcsr", "mxcsr_mask", *_REGISTERS)
_LAYOUT = struct.Struct("<HHBxHQQII" + "16s" * len(_REGISTERS) + "96x")
_HEADER = struct.Struct("<QQ")
assert _LAYOUT.size == FXSAVE_SIZE


def fxsave_registers(area: Buffer, offset: int = 0) -> dict[str, int]:
    """The registers by name; ``st0`` to ``st7`` have 80 bits, in 128. The area may go on.

    Raises StreamError for one that is too short.
    """
    _check_size(area, FXSAVE_SIZE, offset)
    return {
        name: int.from_bytes(value, "little") if isinstance(value, bytes) else value
        for name, value in zip(_NAMES, _LAYOUT.unpack_from(area))
    }


def xsave_header(area: Buffer, offset: int = 0) -> dict[str, int]:
    """``xstate_bv``, which components there are, and ``xcomp_bv``, whether they are compacted.

    Raises StreamError for an area that is too short.
    """
    _check_size(area, FXSAVE_SIZE + XSAVE_HEADER_SIZE, offset)
    return dict(zip(("xstate_bv", "xcomp_bv"), _HEADER.unpack_from(area, FXSAVE_SIZE)))


def _check_size(area: Buffer, size: int, offset: int) -> None:
    if len(area) < size:
        raise StreamError(
            f"the area is {len(area)} bytes long", offset=offset, expected=f"at least {size} bytes"
        )
