"""What the feature bits of CPUID are called, by leaf, subleaf and register.

The names are Xen's (XEN_CPUFEATURE in xen/include/public/arch-x86/cpufeatureset.h, as of Xen 4.22).
Each register's names stand in the order of its bits, with ``-`` for a bit that has none.
"""

from __future__ import annotations

from collections.abc import Iterable

from libxlsr.formats.cpu_policy import CpuidLeaf

_NAMES: dict[tuple[int, int, str], str] = {
    (0x1, 0, "d"): (
        "FPU VME DE PSE TSC MSR PAE MCE CX8 APIC - SEP MTRR PGE MCA CMOV PAT PSE36 - "
        "CLFLUSH - DS ACPI MMX FXSR SSE SSE2 SS HTT TM1 - PBE"
    ),
    (0x1, 0, "c"): (
        "SSE3 PCLMULQDQ DTES64 MONITOR DSCPL VMX SMX EIST TM2 SSSE3 - SDBG FMA CX16 "
        "XTPR PDCM - PCID DCA SSE4_1 SSE4_2 X2APIC MOVBE POPCNT TSC_DEADLINE AESNI "
        "XSAVE OSXSAVE AVX F16C RDRAND HYPERVISOR"
    ),
    (0x80000001, 0, "d"): (
        "- - - - - - - - - - - SYSCALL - - - - - - - - NX - MMXEXT - - FFXSR PAGE1GB "
        "RDTSCP - LM 3DNOWEXT 3DNOW"
    ),
    (0x80000001, 0, "c"): (
        "LAHF_LM CMP_LEGACY SVM EXTAPIC CR8_LEGACY ABM SSE4A MISALIGNSSE 3DNOWPREFETCH "
        "OSVW IBS XOP SKINIT WDT - LWP FMA4 - - NODEID_MSR - TBM TOPOEXT - - - DBEXT - "
        "- MONITORX ADDR_MSK_EXT"
    ),
    (0xD, 1, "a"): ("XSAVEOPT XSAVEC XGETBV1 XSAVES XFD"),
    (0x7, 0, "b"): (
        "FSGSBASE TSC_ADJUST SGX BMI1 HLE AVX2 FDP_EXCP_ONLY SMEP BMI2 ERMS INVPCID RTM "
        "PQM NO_FPU_SEL MPX PQE AVX512F AVX512DQ RDSEED ADX SMAP AVX512_IFMA - "
        "CLFLUSHOPT CLWB PROC_TRACE AVX512PF AVX512ER AVX512CD SHA AVX512BW AVX512VL"
    ),
    (0x7, 0, "c"): (
        "PREFETCHWT1 AVX512_VBMI UMIP PKU OSPKE WAITPKG AVX512_VBMI2 CET_SS GFNI VAES "
        "VPCLMULQDQ AVX512_VNNI AVX512_BITALG TME AVX512_VPOPCNTDQ - LA57 - - - - - "
        "RDPID - BLD CLDEMOTE - MOVDIRI MOVDIR64B ENQCMD SGX_LC PKS"
    ),
    (0x80000007, 0, "d"): ("- - - - - - - HW_PSTATE ITSC CPB EFRO"),
    (0x80000008, 0, "b"): (
        "CLZERO - RSTR_FP_ERR_PTRS - - - - - - WBNOINVD - - IBPB - IBRS AMD_STIBP "
        "IBRS_ALWAYS STIBP_ALWAYS IBRS_FAST IBRS_SAME_MODE NO_LMSL - - AMD_PPIN "
        "AMD_SSBD VIRT_SSBD SSB_NO CPPC PSFD BTC_NO IBPB_RET"
    ),
    (0x7, 0, "d"): (
        "- SGX_KEYS AVX512_4VNNIW AVX512_4FMAPS FSRM UINTR - - AVX512_VP2INTERSECT "
        "SRBDS_CTRL MD_CLEAR RTM_ALWAYS_ABORT - TSX_FORCE_ABORT SERIALIZE HYBRID "
        "TSXLDTRK - PCONFIG ARCH_LBR CET_IBT - AMX_BF16 AVX512_FP16 AMX_TILE AMX_INT8 "
        "IBRSB STIBP L1D_FLUSH ARCH_CAPS CORE_CAPS SSBD"
    ),
    (0x7, 1, "a"): (
        "SHA512 SM3 SM4 - AVX_VNNI AVX512_BF16 LASS CMPCCXADD ARCH_PERF_MON - FZRM FSRS "
        "FSRCS - - - - FRED LKGS WRMSRNS NMI_SRC AMX_FP16 - AVX_IFMA - - LAM MSRLIST - "
        "- NO_INVD MOVRS"
    ),
    (0x80000021, 0, "a"): (
        "NO_NEST_BP FS_GS_NS LFENCE_DISPATCH - - VERW_CLEAR NSCB - AUTO_IBRS - AMD_FSRS "
        "AMD_FSRC - - - - - CPUID_USER_DIS EPSF FSRSC AMD_PREFETCHI - - AVX512_BMM - - "
        "- SBPB IBPB_BRTYPE SRSO_NO SRSO_US_NO SRSO_MSR_FIX"
    ),
    (0x7, 1, "b"): ("INTEL_PPIN"),
    (0x7, 2, "d"): ("INTEL_PSFD IPRED_CTRL RRSBA_CTRL DDP_CTRL BHI_CTRL MCDT_NO UC_LOCK_DIS"),
    (0x7, 1, "d"): (
        "- - - - AVX_VNNI_INT8 AVX_NE_CONVERT - - AMX_COMPLEX - AVX_VNNI_INT16 - - - "
        "PREFETCHI - - UIRET_UIF CET_SSS - - - - - SLSM"
    ),
    (0x80000021, 0, "c"): ("- TSA_SQ_NO TSA_L1_NO"),
}

_BITS = {
    place: tuple((bit, name) for bit, name in enumerate(names.split()) if name != "-")
    for place, names in _NAMES.items()
}


def feature_names(leaves: Iterable[CpuidLeaf]) -> list[str]:
    """The names of all features that a policy has, sorted.

    A feature that two leaves show (AMD repeats leaf 1's at 0x80000001) is named once.
    """
    found: set[str] = set()
    for leaf in leaves:
        subleaf = 0 if leaf.subleaf == 0xFFFFFFFF else leaf.subleaf
        for register in "abcd":
            value: int = getattr(leaf, register)
            for bit, name in _BITS.get((leaf.leaf, subleaf, register), ()):
                if value >> bit & 1:
                    found.add(name)
    return sorted(found)
