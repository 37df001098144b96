"""Lists the records of an ``xl save`` image, both layers: ``list_records.py IMAGE[.xz]``.

Uses nothing but `libxlsr.formats`: pure functions from bytes to values, over any file object.
"""

from __future__ import annotations

import lzma
import sys
from itertools import groupby
from typing import IO

from libxlsr.formats import libxc, libxl, xl
from libxlsr.formats.records import decode_libxc_header, decode_libxl_header


def libxc_records(image: IO[bytes]) -> list[tuple[str, int]]:
    """Name and length of each record of the libxc stream that starts here, up to END."""
    libxc.ImageHeader.decode(image.read(libxc.IMAGE_HEADER_SIZE), image.tell())
    domain = libxc.DomainHeader.decode(image.read(libxc.DOMAIN_HEADER_SIZE), image.tell())
    print(f"  libxc stream saved by Xen {domain.xen_major}.{domain.xen_minor}")
    records: list[tuple[str, int]] = []
    while not records or records[-1][0] != libxc.RecordType.END.name:
        header = decode_libxc_header(image.read(libxc.RECORD_HEADER_SIZE), image.tell())
        image.seek(header.padded_length, 1)
        records.append((header.name, header.length))
    return records


def main() -> None:
    """Walk the image and print what is in it."""
    path = sys.argv[1]
    with lzma.open(path) if path.endswith(".xz") else open(path, "rb") as image:
        header = xl.Header.decode(image.read(xl.FIXED_HEADER_SIZE))
        config = xl.decode_optional_data(header, image.read(header.optional_data_len))
        print(f"xl header, configuration of {config.domain_type} guest {config.name!r}")
        libxl.Header.decode(image.read(libxl.HEADER_SIZE))
        while True:
            start = image.tell()
            record = decode_libxl_header(image.read(libxl.RECORD_HEADER_SIZE), start)
            print(f"{start:#010x} {record.name}, {record.length} bytes")
            if record.type == libxl.RecordType.LIBXC_CONTEXT:
                for name, group in groupby(libxc_records(image), key=lambda entry: entry[0]):
                    lengths = [length for _name, length in group]
                    print(f"  {len(lengths):5} x {name}, {sum(lengths)} bytes")
            image.seek(record.padded_length, 1)
            if record.type == libxl.RecordType.END:
                return


if __name__ == "__main__":
    main()
