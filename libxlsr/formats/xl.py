"""What ``xl save`` puts before libxl's stream: a header and the domain's JSON configuration.

::

    header          magic[32], byteorder u32, mandatory_flags u32, optional_flags u32,
                    optional_data_len u32                                        (little-endian)
    optional data   config length u32, JSON with its NUL, and a tail that may be skipped

Sources: tools/xl/xl.h (struct save_file_header, XL_MANDATORY_FLAG_*), tools/xl/xl_saverestore.c
(save_domain_core_writeconfig), tools/xl/xl_vmcontrol.c (create_domain). The JSON is what
libxl_domain_config_to_json() makes of a libxl_domain_config (libxl_types.idl).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from libxlsr.errors import StreamError
from libxlsr.formats.framing import Buffer, check_reserved, unpack_exact
from libxlsr.formats.xl_config import CONFIG_MAX, Config

__all__ = [
    "CONFIG_MAX",
    "FIXED_HEADER_SIZE",
    "OPTIONAL_DATA_MAX",
    "SAVEFILE_BYTEORDER_VALUE",
    "SAVEFILE_HEADER_MAGIC",
    "XL_MANDATORY_FLAG_ALL",
    "XL_MANDATORY_FLAG_JSON",
    "Config",
    "Header",
    "OptionalData",
    "XL_MANDATORY_FLAG_STREAMv2",
    "decode_optional_data",
]

SAVEFILE_HEADER_MAGIC = b"Xen saved domain, xl format\n \0 \r"
SAVEFILE_BYTEORDER_VALUE = 0x01020304
_SAVEFILE_BYTEORDER_SWAPPED = 0x04030201

XL_MANDATORY_FLAG_JSON = 1 << 0
XL_MANDATORY_FLAG_STREAMv2 = 1 << 1
XL_MANDATORY_FLAG_ALL = XL_MANDATORY_FLAG_JSON | XL_MANDATORY_FLAG_STREAMv2

_HEADER = struct.Struct("<32sIIII")
FIXED_HEADER_SIZE = _HEADER.size

_CONFIG_LENGTH = struct.Struct("<I")

#: Twice the largest configuration: the tail has no content in any Xen so far.
OPTIONAL_DATA_MAX = 2 * CONFIG_MAX


class Header(NamedTuple):
    """The first 48 bytes of what ``xl save`` writes."""

    mandatory_flags: int = XL_MANDATORY_FLAG_ALL
    optional_flags: int = 0
    optional_data_len: int = 0

    def encode(self) -> bytes:
        return _HEADER.pack(
            SAVEFILE_HEADER_MAGIC,
            SAVEFILE_BYTEORDER_VALUE,
            self.mandatory_flags,
            self.optional_flags,
            self.optional_data_len,
        )

    @property
    def is_legacy(self) -> bool:
        """Whether what follows is an image of Xen 4.5 or older."""
        return not self.mandatory_flags & XL_MANDATORY_FLAG_STREAMv2

    @property
    def has_json(self) -> bool:
        """Whether the configuration is JSON, as Xen 4.5 and newer write it."""
        return bool(self.mandatory_flags & XL_MANDATORY_FLAG_JSON)

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0, *, legacy: bool = False) -> Header:
        """Raises StreamError for a wrong magic or byte order, for unknown flags, and for more
        optional data than OPTIONAL_DATA_MAX; for an image of Xen 4.5 or older unless ``legacy``."""
        name = "xl header"
        magic, byteorder, mandatory, optional, length = unpack_exact(_HEADER, data, offset, name)
        if magic != SAVEFILE_HEADER_MAGIC:
            raise StreamError(
                "wrong magic",
                offset=offset,
                record=name,
                expected='"Xen saved domain, xl format"',
                remedy="this was not written by xl save, or was damaged on its way",
            )
        if byteorder == _SAVEFILE_BYTEORDER_SWAPPED:
            raise StreamError(
                "the image is big-endian",
                offset=offset + 32,
                record=name,
                expected="a little-endian image",
                remedy="no Xen host writes big-endian images; the header is damaged",
            )
        if byteorder != SAVEFILE_BYTEORDER_VALUE:
            raise StreamError(
                f"byte order mark is {byteorder:#010x}",
                offset=offset + 32,
                record=name,
                expected=f"{SAVEFILE_BYTEORDER_VALUE:#010x}",
            )
        unknown = mandatory & ~XL_MANDATORY_FLAG_ALL
        check_reserved(unknown, offset + 36, name, "unknown mandatory flags")
        is_legacy = not mandatory & XL_MANDATORY_FLAG_STREAMv2
        if is_legacy and not legacy:
            raise StreamError(
                "the image has the legacy format",
                offset=offset + 36,
                record=name,
                expected="mandatory flag 0x2 (STREAMv2)",
                remedy="it was saved by Xen 4.5 or older: convert it with libxlsr convert",
            )
        if not is_legacy and not mandatory & XL_MANDATORY_FLAG_JSON:
            raise StreamError(
                "the domain's configuration is not in JSON",
                offset=offset + 36,
                record=name,
                expected="mandatory flag 0x1 (JSON)",
            )
        check_reserved(optional, offset + 40, name, "unknown optional flags")
        if length > OPTIONAL_DATA_MAX:
            raise StreamError(
                f"optional data is {length} bytes long",
                offset=offset + 44,
                record=name,
                expected=f"at most {OPTIONAL_DATA_MAX} bytes",
            )
        return cls(mandatory, optional, length)


class OptionalData(NamedTuple):
    """The bytes between the xl header and the libxl stream.

    ``tail`` is what follows the configuration; xl.h lets a reader skip what it doesn't know.
    """

    config: Config
    tail: bytes = b""

    @property
    def tail_offset(self) -> int:
        """Where ``tail`` begins in these bytes."""
        return _CONFIG_LENGTH.size + len(self.config.raw)

    def encode(self) -> bytes:
        raw = self.config.raw
        return _CONFIG_LENGTH.pack(len(raw)) + raw + self.tail

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> OptionalData:
        """Raises StreamError for a missing or oversized configuration, or one that is no JSON."""
        name = "xl optional data"
        if len(data) < _CONFIG_LENGTH.size:
            raise StreamError(
                "there is no domain configuration",
                offset=offset,
                record=name,
                expected="a length and a JSON object",
            )
        (length,) = _CONFIG_LENGTH.unpack_from(data)
        start = _CONFIG_LENGTH.size
        if length > min(len(data) - start, CONFIG_MAX):
            raise StreamError(
                f"the configuration's length is {length}",
                offset=offset,
                record=name,
                expected=f"at most {min(len(data) - start, CONFIG_MAX)} bytes",
            )
        raw = bytes(data[start : start + length])
        return cls(Config.decode(raw, offset + start), bytes(data[start + length :]))


def decode_optional_data(header: Header, data: Buffer, offset: int = FIXED_HEADER_SIZE) -> Config:
    """The configuration in ``data``, the ``header.optional_data_len`` bytes after the header.

    Raises StreamError as OptionalData.decode() does, and where ``data`` has another length.
    """
    if len(data) != header.optional_data_len:
        raise StreamError(
            f"{len(data)} bytes of optional data",
            offset=offset,
            record="xl optional data",
            expected=f"{header.optional_data_len} bytes",
        )
    return OptionalData.decode(data, offset).config
