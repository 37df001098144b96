"""What an image's records say of the guest as far as it takes several of them to say it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from libxlsr.formats.libxc import PAGE_SIZE, DomainHeader, ImageHeader
from libxlsr.formats.libxc_pv import X86PvP2mFrames


class ConfiguredGuest(NamedTuple):
    """What the configuration says of the domain that the image has to fit; None for what is not
    known."""

    domain_type: str | None = None
    """"pv", "pvh" or "hvm"."""
    max_vcpus: int | None = None


class P2m:
    """A PV guest's P2M as its X86_PV_P2M_FRAMES put it together."""

    def __init__(self) -> None:
        self.covered = 0
        """Guest frames that it covers so far: higher ones can't be restored."""
        self._frames = array("I")

    @property
    def frames(self) -> Sequence[int]:
        """The frames that hold the P2M itself."""
        return self._frames

    def range_of(self, body: X86PvP2mFrames, guest_width: int) -> range:
        """Which of ``frames`` a record names."""
        first = body.start_pfn // (PAGE_SIZE // guest_width)
        return range(first, first + len(body.p2m_pfns))

    def add(self, body: X86PvP2mFrames, guest_width: int, offset: int) -> None:
        """Take a record's frames. Raises StreamError where it leaves a gap."""
        self.covered = body.extend(self.covered, offset)
        named = self.range_of(body, guest_width)
        self._frames[named.start : named.stop] = array("I", body.p2m_pfns)

    def whole(self) -> X86PvP2mFrames:
        """All records that came, as one."""
        return X86PvP2mFrames(0, self.covered - 1, tuple(self._frames))


class Guest:
    """The guest of one image, as the walk knows it so far."""

    def __init__(
        self, image: ImageHeader, domain: DomainHeader, configured: ConfiguredGuest
    ) -> None:
        self.image = image
        self.domain = domain
        self.configured = configured
        self.guest_width = 8
        """X86_PV_INFO's, bytes: 4 or 8."""
        self.p2m = P2m()
        self.hvm_params: dict[int, int] | None = None
        """By index, of all HVM_PARAMS: convert-legacy-stream writes two, of different parameters.
        None before there was one."""

    @property
    def is_pv(self) -> bool:
        return self.domain.is_pv

    @property
    def xen_version(self) -> str:
        """Of the Xen that saved it, "4.17"."""
        return f"{self.domain.xen_major}.{self.domain.xen_minor}"

    @property
    def domain_type(self) -> str | None:
        """ "pv", "pvh", "hvm"; None for HVM or PVH without a configuration."""
        return self.configured.domain_type or ("pv" if self.is_pv else None)
