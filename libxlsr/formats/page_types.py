"""XEN_DOMCTL_PFINFO_*: what a page is, the top four bits of each entry of a PAGE_DATA record.

Sources: xen/include/public/domctl.h (where these values are shifted left by 28);
docs/specs/libxc-migration-stream.pandoc, "PAGE_DATA".
"""

from __future__ import annotations

XEN_DOMCTL_PFINFO_NOTAB = 0x0
XEN_DOMCTL_PFINFO_L1TAB = 0x1
XEN_DOMCTL_PFINFO_L2TAB = 0x2
XEN_DOMCTL_PFINFO_L3TAB = 0x3
XEN_DOMCTL_PFINFO_L4TAB = 0x4
XEN_DOMCTL_PFINFO_LPINTAB = 0x8  # or'ed to L1TAB to L4TAB: a pinned page table
XEN_DOMCTL_PFINFO_BROKEN = 0xD
XEN_DOMCTL_PFINFO_XALLOC = 0xE
XEN_DOMCTL_PFINFO_XTAB = 0xF

#: How the types are called where people see them. Types 5 to 8 are reserved.
PAGE_TYPE_NAMES = {
    XEN_DOMCTL_PFINFO_NOTAB: "NOTAB",
    XEN_DOMCTL_PFINFO_L1TAB: "L1TAB",
    XEN_DOMCTL_PFINFO_L2TAB: "L2TAB",
    XEN_DOMCTL_PFINFO_L3TAB: "L3TAB",
    XEN_DOMCTL_PFINFO_L4TAB: "L4TAB",
    XEN_DOMCTL_PFINFO_LPINTAB | XEN_DOMCTL_PFINFO_L1TAB: "L1TAB_PIN",
    XEN_DOMCTL_PFINFO_LPINTAB | XEN_DOMCTL_PFINFO_L2TAB: "L2TAB_PIN",
    XEN_DOMCTL_PFINFO_LPINTAB | XEN_DOMCTL_PFINFO_L3TAB: "L3TAB_PIN",
    XEN_DOMCTL_PFINFO_LPINTAB | XEN_DOMCTL_PFINFO_L4TAB: "L4TAB_PIN",
    XEN_DOMCTL_PFINFO_BROKEN: "BROKEN",
    XEN_DOMCTL_PFINFO_XALLOC: "XALLOC",
    XEN_DOMCTL_PFINFO_XTAB: "XTAB",
}

#: Types whose pages have no contents in the stream.
WITHOUT_DATA = frozenset(
    {XEN_DOMCTL_PFINFO_BROKEN, XEN_DOMCTL_PFINFO_XALLOC, XEN_DOMCTL_PFINFO_XTAB}
)


PAGE_TABLES = bytes({0x1, 0x2, 0x3, 0x4, 0x9, 0xA, 0xB, 0xC})
"""Types of a PV guest's page tables."""
_NO_TABLES = bytes(byte for byte in range(256) if byte not in PAGE_TABLES)


def is_page_table(page_type: int) -> bool:
    """Whether a page of this type is a PV guest's page table, of any level, pinned or not."""
    return page_type in PAGE_TABLES


def has_page_tables(types: bytes) -> bool:
    """Whether any of these page types is that of a page table."""
    return bool(types.translate(None, _NO_TABLES))


def has_data(page_type: int) -> bool:
    """Whether a page of this type has its contents in the stream."""
    return page_type not in WITHOUT_DATA
