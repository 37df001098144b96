"""HVM_PARAMS: an HVM or PVH domain's parameters, by number.

::

    count u32, zero u32, then count times: index u64, value u64

Sources: docs/specs/libxc-migration-stream.pandoc; xen/include/public/hvm/params.h for the names.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from libxlsr.errors import StreamError
from libxlsr.formats.framing import Buffer, check_minimum, check_reserved
from libxlsr.formats.libxc import RecordType

HVM_PARAM_STORE_PFN = 1
HVM_PARAM_IOREQ_PFN = 5
HVM_PARAM_BUFIOREQ_PFN = 6
HVM_PARAM_IDENT_PT = 12
HVM_PARAM_CONSOLE_PFN = 17

HVM_PARAM_NAMES = {
    0: "CALLBACK_IRQ",
    1: "STORE_PFN",
    2: "STORE_EVTCHN",
    4: "PAE_ENABLED",
    5: "IOREQ_PFN",
    6: "BUFIOREQ_PFN",
    9: "VIRIDIAN",
    10: "TIMER_MODE",
    11: "HPET_ENABLED",
    12: "IDENT_PT",
    13: "DM_DOMAIN",
    14: "ACPI_S_STATE",
    15: "VM86_TSS",
    16: "VPT_ALIGN",
    17: "CONSOLE_PFN",
    18: "CONSOLE_EVTCHN",
    19: "ACPI_IOPORTS_LOCATION",
    20: "MEMORY_EVENT_CR0",
    21: "MEMORY_EVENT_CR3",
    22: "MEMORY_EVENT_CR4",
    23: "MEMORY_EVENT_INT3",
    24: "NESTEDHVM",
    25: "MEMORY_EVENT_SINGLE_STEP",
    26: "BUFIOREQ_EVTCHN",
    27: "PAGING_RING_PFN",
    28: "MONITOR_RING_PFN",
    29: "SHARING_RING_PFN",
    30: "MEMORY_EVENT_MSR",
    31: "TRIPLE_FAULT_REASON",
    32: "IOREQ_SERVER_PFN",
    33: "NR_IOREQ_SERVER_PAGES",
    34: "VM_GENERATION_ID_ADDR",
    35: "ALTP2M",
    36: "X87_FIP_WIDTH",
    37: "VM86_TSS_SIZED",
    38: "MCA_CAP",
}


def hvm_param_name(index: int) -> str:
    """The name of a parameter as in params.h, without HVM_PARAM_; unknown ones as a number."""
    return HVM_PARAM_NAMES.get(index, f"param {index:#x}")


#: So many parameters are taken. Xen 4.22 has 39 (HVM_NR_PARAMS).
HVM_PARAMS_MAX = 1024

_HEADER = struct.Struct("<II")
_ENTRY = struct.Struct("<QQ")


class HvmParams(NamedTuple):
    """``(index, value)`` of each parameter, in the record's order."""

    params: tuple[tuple[int, int], ...] = ()

    def encode(self) -> bytes:
        return _HEADER.pack(len(self.params), 0) + b"".join(
            _ENTRY.pack(index, value) for index, value in self.params
        )

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> HvmParams:
        """Raises StreamError for another length than count says, and a parameter given twice.

        No parameters at all is taken: Xen 4.6 to 4.8 wrote such records (the spec's erratum 1).
        Indexes are not checked against the table: later versions of Xen have more of them.
        """
        name = RecordType.HVM_PARAMS.name
        check_minimum(data, _HEADER.size, offset, name)
        count, reserved = _HEADER.unpack_from(data)
        if count > HVM_PARAMS_MAX:
            raise StreamError(
                f"count is {count}",
                offset=offset,
                record=name,
                expected=f"at most {HVM_PARAMS_MAX}",
            )
        length = _HEADER.size + _ENTRY.size * count
        if len(data) != length:
            raise StreamError(
                f"count is {count} in a record of {len(data)} bytes",
                offset=offset,
                record=name,
                expected=f"{length} bytes",
            )
        check_reserved(reserved, offset + 4, name)
        params = tuple(_ENTRY.iter_unpack(data[_HEADER.size :]))
        seen: set[int] = set()
        for number, (index, _) in enumerate(params):
            if index in seen:
                raise StreamError(
                    f"{hvm_param_name(index)} comes twice",
                    offset=offset + _HEADER.size + _ENTRY.size * number,
                    record=name,
                )
            seen.add(index)
        return cls(params)
