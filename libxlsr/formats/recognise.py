"""What kind of file or stream this is, told from its first eight bytes.

=========  =====================================  =============================================
kind       first bytes                            source
=========  =====================================  =============================================
xl         ``Xen save``                           tools/xl/xl.h, savefileheader_magic
libxl      ``LibxlFmt``                           libxl-migration-stream.pandoc, "Header"
libxc      eight times 0xff                       libxc-migration-stream.pandoc, "Image Header"
legacy     a p2m size, then 0 or 0xffffffff       same, "Legacy Images"; also xend's LinuxGuest
gzip       1f 8b                                  RFC 1952
xz         fd 37 7a 58 5a 00                      the .xz file format, 2.1.1.1
zstd       28 b5 2f fd, 5x 2a 4d 18 (skippable)   RFC 8878, 3.1.1 and 3.1.2; pzstd writes both
=========  =====================================  =============================================
"""

from __future__ import annotations

from libxlsr.formats.framing import Buffer

SIZE = 8

XEND_MAGIC = b"LinuxGue"
"""How an image of xend's begins; it is legacy, and nothing here can convert it."""

_MAGICS = (
    (b"Xen save", "xl"),
    (b"LibxlFmt", "libxl"),
    (b"\xff" * 8, "libxc"),
    (XEND_MAGIC, "legacy"),
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    *((bytes([byte, 0x2A, 0x4D, 0x18]), "zstd") for byte in range(0x50, 0x60)),
)

COMPRESSED = frozenset({"gzip", "xz", "zstd"})
"""The kinds that hold another one, compressed (`libxlsr.source.codecs`)."""


def recognise(data: Buffer) -> str | None:
    """The kind of stream that begins with ``data`` (8 bytes), or None if it is none of the above.

    A 32-bit toolstack's legacy HVM image has no mark to know it by and is not recognised.
    """
    head = bytes(data[:SIZE])
    for magic, kind in _MAGICS:
        if head.startswith(magic):
            return kind
    if len(head) == SIZE and any(head[:4]) and head[4:] in (b"\0\0\0\0", b"\xff\xff\xff\xff"):
        return "legacy"
    return None
