"""What can be known before a domain is created, checked and said in one message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from libxlsr.domain import identity, memory
from libxlsr.domain.config import DomainConfig
from libxlsr.domain.device_model.program import needs_device_model, program_of
from libxlsr.domain.devices import checks as device_checks
from libxlsr.domain.devices.plan import ATTACHED
from libxlsr.domain.host import XenHost
from libxlsr.errors import LibxlsrError, TargetError
from libxlsr.formats.text import printable
from libxlsr.xen.hostinfo import PhysInfo
from libxlsr.xen.xenctrl import Xenctrl
from libxlsr.xen.xenstore import Xenstore

HVM_MAX_VCPUS = 128
"""xen/hvm/hvm_info_table.h."""


def check(
    config: DomainConfig,
    host: XenHost,
    xenctrl: Xenctrl,
    xenstore: Xenstore,
    *,
    may_balloon: bool,
) -> None:
    """Raises one TargetError that names everything that stands in the way."""
    info = xenctrl.physinfo()
    problems = [
        *guest_type_problems(config, info),
        *label_problems(config),
        *device_problems(config),
        *device_model_problems(config, host),
        *device_checks.problems(config, host, xenstore),
        *identity.problems(config, xenctrl, xenstore),
    ]
    if not may_balloon:
        problems += memory_problems(config, info)
    _raise(problems)


def check_disks(config: DomainConfig, host: XenHost, xenstore: Xenstore) -> None:
    """The part of ``check`` that others can change while the stream is read. Raises as it does."""
    _raise([*device_checks.problems(config, host, xenstore)])


def _raise(problems: Sequence[str]) -> None:
    if problems:
        raise TargetError("the domain can't be restored here: " + "; ".join(problems))


def hap_of(config: DomainConfig, host: PhysInfo) -> bool:
    """Whether the domain will use hardware-assisted paging."""
    return config.hvm_container and (host.hap if config.hap is None else config.hap)


def guest_type_problems(config: DomainConfig, host: PhysInfo) -> Iterator[str]:
    """What the host can't run."""
    kind = config.domain_type
    if kind == "pv" and not host.pv:
        yield "this host runs no PV guests (Xen was built or booted without them)"
    if kind != "pv":
        if not host.hvm:
            yield f"this host runs no {kind.upper()} guests (no VT-x or AMD-V, or switched off)"
        elif not host.hap and not host.shadow:
            yield "this host has neither hardware-assisted nor shadow paging"
        elif config.hap and not host.hap:
            yield "the domain wants hardware-assisted paging, which this host lacks"
        if config.max_vcpus > HVM_MAX_VCPUS:
            yield f"{config.max_vcpus} vCPUs, a {kind.upper()} guest has {HVM_MAX_VCPUS} at most"
    if config.tsc_mode not in (0, 1, 2):
        yield "its TSC mode is not known"
    if config.e820_host:
        yield (
            "it has the host's memory map (e820_host), which it can't be given here "
            "(drop it with --config-override b_info.type.pv.e820_host=False)"
        )


def label_problems(config: DomainConfig) -> Iterator[str]:
    """Labels of Xen's security modules, which libxl would have Xen's policy look up."""
    for place, label in config.ssid_labels.items():
        yield (
            f"it has the XSM label {printable(label, 80)}, which can't be restored "
            f"(leave it out with --config-override {place}=null)"
        )


def device_model_problems(config: DomainConfig, host: XenHost) -> Iterator[str]:
    """A device model that can't be started."""
    if needs_device_model(config):
        try:
            program_of(config, host)
        except LibxlsrError as error:
            yield str(error)


_DEVICE_NAMES = {
    "pcidevs": "PCI devices passed through",
    "dtdevs": "device tree devices",
    "usbdevs": "USB devices",
    "usbctrls": "USB controllers",
    "vtpms": "virtual TPMs",
    "p9s": "9pfs shares",
    "pvcallsifs": "PV calls interfaces",
    "vdispls": "PV displays",
    "vsnds": "PV sound devices",
    "virtios": "virtio devices",
    "channels": "channels",
    "rdms": "reserved device memory",
}


def device_problems(config: DomainConfig) -> Iterator[str]:
    """Devices that this target does not bring back."""
    yield from config.unsupported
    for kind, count in config.device_counts.items():
        if kind in ATTACHED:
            continue
        yield f"it has {_DEVICE_NAMES.get(kind, kind)} ({count}), which can't be restored"
    if config.passthrough not in ("default", "disabled"):
        yield "it is set up for device passthrough, which can't be restored"


def memory_problems(config: DomainConfig, host: PhysInfo) -> Iterator[str]:
    """Memory that the host lacks."""
    hap = hap_of(config, host)
    missing = memory.missing_memkb(config, host, hap)
    if missing:
        need = memory.needed_memkb(config, hap)
        yield (
            f"it needs {need} KiB of memory and the host has "
            f"{host.allocatable_bytes // 1024} KiB free: {missing} KiB are missing "
            "(free some with xl mem-set 0, or let dom0 be ballooned with --balloon)"
        )
