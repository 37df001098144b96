"""What an HVM domain's entries of HVM_CONTEXT must have to be what a Xen saves.

Xen saves a CPU entry for each vCPU that is up, and MTRRs, local APIC and the like for all that the
domain has, up or down (the save handlers in xen/arch/x86/hvm); and each device of an HVM guest's
platform. Loading takes what there is, and leaves what is missing as a new domain has it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from libxlsr.formats.hvm_context import (
    HVM_SAVE_CODE_CPU,
    HVM_SAVE_CODE_TSC_ADJUST,
    HVM_SAVE_CODE_VIRIDIAN_VCPU,
    HVM_SAVE_CODE_VMCE_VCPU,
    HVM_SAVE_EVERY_HVM_GUEST,
    HVM_SAVE_EVERY_VCPU,
    HVM_SAVE_NAMES,
    HVM_SAVE_SIZES,
    HvmContext,
    hvm_save_name,
)

_EVERY_VCPU_IF_ANY = (
    HVM_SAVE_CODE_VIRIDIAN_VCPU,
    HVM_SAVE_CODE_VMCE_VCPU,
    HVM_SAVE_CODE_TSC_ADJUST,
)
"""Types that all vCPUs have an entry of where one has."""


def hvm_context_findings(
    context: HvmContext, guest: str | None, available: Sequence[int]
) -> Iterator[tuple[str, str]]:
    """Pairs of a finding's id and its message.

    ``guest`` ("hvm", "pvh") and ``available`` (the vCPUs that were to be up) are the
    configuration's; None and empty where there is none.
    """
    instances: defaultdict[int, set[int]] = defaultdict(set)
    for entry in context.entries:
        if entry.typecode not in HVM_SAVE_NAMES:
            yield "hvm-context-entry", f"{hvm_save_name(entry.typecode)} is unknown"
        _, most = HVM_SAVE_SIZES.get(entry.typecode, (0, None))
        where = f"{entry.name}[{entry.instance}]"
        if most is not None and len(entry.state) > most:
            yield "hvm-context-entry", f"{where} has a length of {len(entry.state)}, not {most}"
        if entry.instance in instances[entry.typecode]:
            yield "hvm-context-entry", f"a second {where}"
        instances[entry.typecode].add(entry.instance)
    running = instances[HVM_SAVE_CODE_CPU]
    if not running:
        yield "hvm-context-vcpu", "no entry for any vCPU"
    for typecode in (*HVM_SAVE_EVERY_VCPU, *_EVERY_VCPU_IF_ANY):
        if typecode in HVM_SAVE_EVERY_VCPU or instances[typecode]:
            for vcpu in sorted(running - instances[typecode]):
                yield "hvm-context-missing", f"no {hvm_save_name(typecode)}[{vcpu}]"
    for typecode, instance in HVM_SAVE_EVERY_HVM_GUEST if guest == "hvm" else ():
        if instance not in instances[typecode]:
            yield "hvm-context-missing", f"no {hvm_save_name(typecode)}[{instance}]"
    if running:
        for vcpu in available:
            if vcpu not in running:
                yield "hvm-vcpu-down", f"vCPU {vcpu}"
