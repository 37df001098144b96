"""Invariant: any bytes are a libxc image, domain or record header that encodes to the same bytes,
or a StreamError at an offset within them; a record's length is at most 128 MiB."""

from __future__ import annotations

from collections.abc import Mapping

from libxlsr.formats import libxc
from libxlsr.formats.records import decode_libxc_header

from ..invariants import decoded


def check(data: bytes) -> None:
    image = decoded(libxc.ImageHeader.decode, data[: libxc.IMAGE_HEADER_SIZE])
    assert image is None or image.encode() == data[: libxc.IMAGE_HEADER_SIZE]
    domain = decoded(libxc.DomainHeader.decode, data[: libxc.DOMAIN_HEADER_SIZE])
    assert domain is None or domain.encode() == data[: libxc.DOMAIN_HEADER_SIZE]
    record = decoded(decode_libxc_header, data[: libxc.RECORD_HEADER_SIZE])
    if record is not None:
        assert record.encode() == data[: libxc.RECORD_HEADER_SIZE]
        assert record.length <= libxc.REC_LENGTH_MAX
        assert record.padded_length % 8 == 0
        assert record.name.isprintable()


def seeds() -> Mapping[str, bytes]:
    return {
        "image": libxc.ImageHeader().encode(),
        "image-v2": libxc.ImageHeader(2).encode(),
        "domain-pv": libxc.DomainHeader(libxc.DHDR_TYPE_X86_PV, 4, 17).encode(),
        "domain-hvm": libxc.DomainHeader(libxc.DHDR_TYPE_X86_HVM, 0, 2).encode(),
        "page-data": libxc.RecordHeader(libxc.RecordType.PAGE_DATA, 4112).encode(),
        "end": libxc.RecordHeader(libxc.RecordType.END, 0).encode(),
    }
