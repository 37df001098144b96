"""Invariant: any bytes are an xl header and configuration that encode to the same bytes, or a
StreamError at an offset within them; so is each thing that is asked of the configuration."""

from __future__ import annotations

from collections.abc import Mapping

from libxlsr.errors import StreamError
from libxlsr.formats import xl
from libxlsr.testing.builder import config_json

from ..invariants import check_message, decoded

_ASKED = (
    "domain_type",
    "name",
    "uuid",
    "max_vcpus",
    "max_memkb",
    "target_memkb",
    "video_memkb",
    "shadow_memkb",
)


def check(data: bytes) -> None:
    fixed, rest = data[: xl.FIXED_HEADER_SIZE], data[xl.FIXED_HEADER_SIZE :]
    header = decoded(xl.Header.decode, fixed)
    if header is None:
        header = xl.Header()
    else:
        assert header.encode() == fixed
    header = header._replace(optional_data_len=len(rest))
    optional = decoded(xl.OptionalData.decode, rest)
    if optional is not None:
        assert optional.encode() == rest
        config = xl.decode_optional_data(header, rest)
        assert config == optional.config
        _ask(config)


def _ask(config: xl.Config) -> None:
    for name in _ASKED:
        try:
            getattr(config, name)
        except StreamError as error:
            check_message(error)
    try:
        config.defbool("c_info", "run_hotplug_scripts")
    except StreamError as error:
        check_message(error)


def seeds() -> Mapping[str, bytes]:
    found = {}
    for guest in ("pv", "pvh", "hvm"):
        config = xl.Config.from_json(config_json(guest, 4, vcpus=2))
        rest = xl.OptionalData(config, b"" if guest != "pv" else b"tail").encode()
        found[guest] = xl.Header(optional_data_len=len(rest)).encode() + rest
    return found
