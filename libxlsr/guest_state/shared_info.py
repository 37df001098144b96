"""The shared info page of a PV guest: its clocks and event channels.

::

    64-bit   vcpu_info[32] of 64 bytes, evtchn_pending u64[64], evtchn_mask u64[64],
             wc_version u32, wc_sec u32, wc_nsec u32, wc_sec_hi u32
    32-bit   the same with u32[32], and wc_sec_hi within arch

Source: struct shared_info in xen/include/public/xen.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from libxlsr.formats.framing import Buffer

_VCPU_INFOS = 32 * 64


@dataclass(frozen=True)
class SharedInfoPage:
    """What the page says that does not depend on a vCPU."""

    wc_version: int
    wc_sec: int
    """Seconds since 1970 at the host's system time 0, when the host was booted, plus the guest's
    RTC offset: the guest's clock is this and the system time (update_domain_wallclock_time() in
    xen/common/time.c)."""
    wc_nsec: int
    pending: tuple[int, ...]
    """Event channels with an event that was not taken yet."""
    unmasked: int
    """How many event channels are not masked."""

    @classmethod
    def decode(cls, page: Buffer, guest_width: int = 8) -> SharedInfoPage:
        """``page`` is one whole page, ``guest_width`` X86_PV_INFO's (4 or 8)."""
        channels = 32 * 32 if guest_width == 4 else 64 * 64
        size = channels // 8
        pending = int.from_bytes(page[_VCPU_INFOS : _VCPU_INFOS + size], "little")
        mask = int.from_bytes(page[_VCPU_INFOS + size : _VCPU_INFOS + 2 * size], "little")
        version, seconds, nanoseconds = struct.unpack_from("<III", page, _VCPU_INFOS + 2 * size)
        if guest_width == 8:
            (high,) = struct.unpack_from("<I", page, _VCPU_INFOS + 2 * size + 12)
            seconds |= high << 32
        return cls(
            wc_version=version,
            wc_sec=seconds,
            wc_nsec=nanoseconds,
            pending=tuple(number for number in range(channels) if pending >> number & 1),
            unmasked=channels - bin(mask).count("1"),
        )
