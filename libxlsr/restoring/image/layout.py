"""The files of an offline restore, below its output directory.

==========================  ======================================================================
``image.json``              what this is: versions, guest, frames by type, records, the file list
``config.json``             the domain's configuration, as it was in the xl header
``memory``                  guest memory: frame N at N * 4096; what was never sent is a hole
``page_types``              a byte a frame: 0 not sent, else 0x80 | type (public/domctl.h,
                            XEN_DOMCTL_PFINFO_* >> 28); and 0x40 where that type has no contents
                            but the frame was sent with some before, which ``memory`` has
``pv_info.json``            X86_PV_INFO: guest width, page table levels
``p2m_frames``              X86_PV_P2M_FRAMES: u64 little-endian frame numbers of the P2M itself
``vcpus/N/basic`` …         X86_PV_VCPU_*: ``basic``, ``extended``, ``xsave``, ``msrs``
``shared_info``             the shared info page
``tsc_info.json``           X86_TSC_INFO
``hvm_context``             the blob of HVM_CONTEXT (public/hvm/save.h)
``hvm_params.json``         HVM_PARAMS by index and name
``cpuid_policy.json``       X86_CPUID_POLICY: leaves
``msr_policy.json``         X86_MSR_POLICY: MSRs
``emulator/xenstore.json``  EMULATOR_XENSTORE_DATA: emulator, index, keys and values
``emulator/context``        EMULATOR_CONTEXT without its sub-header: what QEMU would load
==========================  ======================================================================

Files are created with mode 0600 and directories with 0700: this is a guest's memory.
"""

from __future__ import annotations

MANIFEST = "image.json"
CONFIG = "config.json"
MEMORY = "memory"
PAGE_TYPES = "page_types"
PV_INFO = "pv_info.json"
P2M_FRAMES = "p2m_frames"
VCPUS = "vcpus"
SHARED_INFO = "shared_info"
TSC_INFO = "tsc_info.json"
HVM_CONTEXT = "hvm_context"
HVM_PARAMS = "hvm_params.json"
CPUID_POLICY = "cpuid_policy.json"
MSR_POLICY = "msr_policy.json"
EMULATOR_XENSTORE = "emulator/xenstore.json"
EMULATOR_CONTEXT = "emulator/context"

PAGE_TYPE_SENT = 0x80
"""Set in each byte of ``page_types`` whose frame the stream named."""
PAGE_TYPE_KEPT = 0x40
"""Set where contents came before the frame was given its type, which has none."""
