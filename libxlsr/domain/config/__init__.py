"""What the configuration of a domain says, typed, with libxl's defaults filled in.

``domain`` is the whole, `read_config` its way in; ``hvm`` is what only an HVM guest has,
``devices`` its disks, network cards and screen, ``unsupported`` what can't be done here.
``overrides`` is what the caller says instead. ``reader`` reads members by type.

"HVM" is two things in Xen, and has two names here. A guest of the type "hvm" has a device model
and firmware (LIBXL_DOMAIN_TYPE_HVM): `DomainConfig.hvm` has what only it has, and is None for
another. An HVM *container* (XEN_DOMCTL_CDF_hvm) is what both such a guest and a PVH guest run in:
`DomainConfig.hvm_container`.
"""

from __future__ import annotations

from libxlsr.domain.config.domain import DomainConfig, read_config

__all__ = ["DomainConfig", "read_config"]
