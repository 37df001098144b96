"""The domain's configuration as libxl writes it: one JSON object.

The bytes are kept as they came (``raw``), so that a stream can be written back unchanged. The
object holds a libxl_domain_config of libxl_types.idl: ``c_info`` (what to create), ``b_info`` (how
to build it, with a part that depends on the type under ``type.hvm`` or its kin), and lists of
devices. libxl leaves out what has its default, and writes a defbool as the string "True" or
"False".

A configuration names programs, files and scripts; who may write one can run code on the host.
Nothing here acts upon it: the accessors check type and range, no more.
"""

from __future__ import annotations

import json
import re
from typing import Any

from libxlsr.errors import StreamError
from libxlsr.formats.framing import Buffer
from libxlsr.formats.text import printable

#: Bytes, with the NUL. libxl has no limit; this is the most that it takes of a JSON answer from
#: QEMU (QMP_MAX_SIZE_RX_BUF in libxl_qmp.c). Real configurations have 1 to 20 KiB.
CONFIG_MAX = 1 << 20
#: libxl_domain_config is six levels deep at the most.
DEPTH_MAX = 32
#: A u64 has 20 digits, and a sign may come before it.
_NUMBER_MAX = 21

_NAME = "xl domain configuration"
DOMAIN_TYPES = ("pv", "pvh", "hvm")
DOMAIN_NAME_MAX = 255
#: 2**52 bytes, the x86 architecture's physical address space, in KiB.
MEMKB_MAX = 1 << 42
#: xen/arch/x86/include/asm/config.h, MAX_VIRT_CPUS.
MAX_VIRT_CPUS = 8192

_SURROGATE = "[\ud800-\udfff]"
_UUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z"


class _Refused(ValueError):
    """Found while parsing; without an offset, which the JSON parser doesn't tell."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Refused(f"key '{printable(key, 60)}' comes twice in one object")
            seen.add(key)
    return members


def _refuse_constant(text: str) -> Any:
    raise _Refused(f"{text} is no JSON number")


def _integer(text: str) -> int:
    if len(text) > _NUMBER_MAX:
        raise _Refused(f"a number of {len(text)} digits")
    return int(text)


def _refuse_fraction(text: str) -> Any:
    raise _Refused(f"{printable(text, 40)} is no whole number")


def _check_tree(root: Any) -> None:
    """Bounds the depth, and refuses lone surrogates, which can't be written as UTF-8 again."""
    level = [root]
    depth = 0
    while level:
        depth += 1
        if depth > DEPTH_MAX:
            raise _Refused(f"nested deeper than {DEPTH_MAX} levels")
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(value.keys())
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
            elif isinstance(value, str) and not value.isascii() and re.search(_SURROGATE, value):
                raise _Refused(f"'{printable(value, 60)}' has a lone surrogate")
        level = below


def _parse(text: str) -> dict[str, Any]:
    root = json.loads(
        text,
        object_pairs_hook=_unique,
        parse_constant=_refuse_constant,
        parse_int=_integer,
        parse_float=_refuse_fraction,
    )
    if not isinstance(root, dict):
        raise _Refused("it is no JSON object")
    _check_tree(root)
    return root


class Config:
    """A domain's configuration. ``raw`` has the bytes with their NUL, ``json`` what they say. Equal
    bytes are equal configurations, wherever they stood (``offset``)."""

    def __init__(self, raw: bytes, json: dict[str, Any], offset: int = 0) -> None:
        self.raw = raw
        self.json = json
        self.offset = offset

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"Config({self.raw!r}, {self.json!r})"

    def encode(self) -> bytes:
        return self.raw

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Config:
        """The configuration that says ``value``, laid out as libxl does. Raises StreamError."""
        return cls.decode(json.dumps(value, indent=4).encode("ascii") + b"\n\0")

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> Config:
        """Raises StreamError for anything but one JSON object in UTF-8 with one NUL after it.

        Refused too: keys that come twice, NaN, Infinity and fractions, numbers that no u64
        holds, lone surrogates, and nesting deeper than DEPTH_MAX.
        """
        raw = bytes(data)
        if len(raw) > CONFIG_MAX:
            raise _error(f"it is {len(raw)} bytes long", offset, f"at most {CONFIG_MAX} bytes")
        nul = raw.find(b"\0")
        if nul == -1:
            raise _error("it is not terminated", offset + max(len(raw) - 1, 0), "a NUL")
        if nul != len(raw) - 1:
            raise _error("a NUL inside", offset + nul, "one at the end only")
        try:
            text = raw[:-1].decode("utf-8")
        except UnicodeDecodeError as error:
            raise _error("it is no UTF-8", offset + error.start, "a JSON object") from None
        try:
            untrusted = _parse(text)
        except json.JSONDecodeError as error:
            position = len(text[: error.pos].encode("utf-8"))
            raise _error(
                f"it is no JSON: {error.msg}", offset + position, "a JSON object"
            ) from None
        except (_Refused, RecursionError) as error:
            what = str(error) if isinstance(error, _Refused) else "nested too deeply"
            raise _error(what, offset, "a JSON object as libxl writes it") from None
        return cls(raw, untrusted, offset)

    def value(self, *path: str) -> Any:
        """What stands at ``path`` (keys from the root on), unchecked; None where nothing does.

        Raises StreamError where something on the way is no object.
        """
        node: Any = self.json
        for depth, key in enumerate(path):
            if not isinstance(node, dict):
                raise self._wrong(path[:depth], "is no object")
            node = node.get(key)
            if node is None:
                return None
        return node

    def string(self, *path: str) -> str | None:
        """The string at ``path``, None where it is missing. Raises StreamError for another type.

        It may hold control characters: show it through text.printable().
        """
        untrusted = self.value(*path)
        if untrusted is not None and not isinstance(untrusted, str):
            raise self._wrong(path, "is no string")
        return untrusted

    def integer(self, *path: str, minimum: int = 0, maximum: int = 2**64 - 1) -> int | None:
        """The whole number at ``path``, None where it is missing.

        Raises StreamError for another type and outside of ``minimum`` to ``maximum``.
        """
        untrusted = self.value(*path)
        if untrusted is None:
            return None
        if not isinstance(untrusted, int) or isinstance(untrusted, bool):
            raise self._wrong(path, "is no whole number")
        if not minimum <= untrusted <= maximum:
            raise self._wrong(path, f"is {untrusted}", f"{minimum} to {maximum}")
        return untrusted

    def defbool(self, *path: str) -> bool | None:
        """The libxl_defbool at ``path``: "True", "False" or a JSON boolean; None: the default.

        Raises StreamError for anything else.
        """
        untrusted = self.value(*path)
        if untrusted is None or isinstance(untrusted, bool):
            return untrusted
        if untrusted not in ("True", "False", "<default>"):
            raise self._wrong(path, "is no truth value", '"True" or "False"')
        return {"True": True, "False": False}.get(untrusted)

    def check(self) -> None:
        """Raises StreamError where what a restore asks for is missing or makes no sense."""
        _ = (self.domain_type, self.name, self.max_vcpus, self.target_memkb)
        _ = (self.video_memkb, self.shadow_memkb)
        if self.value("c_info", "uuid") is not None:
            _ = self.uuid

    @property
    def domain_type(self) -> str:
        """'pv', 'pvh' or 'hvm'."""
        untrusted = self.string("c_info", "type")
        if untrusted not in DOMAIN_TYPES:
            raise self._wrong(("c_info", "type"), _shown(untrusted), "pv, pvh or hvm")
        return untrusted

    @property
    def name(self) -> str:
        """The domain's name: 1 to 255 printable characters and no slash, as it names files."""
        untrusted = self.string("c_info", "name")
        if (
            not untrusted
            or len(untrusted) > DOMAIN_NAME_MAX
            or "/" in untrusted
            or not untrusted.isprintable()
        ):
            raise self._wrong(
                ("c_info", "name"),
                _shown(untrusted),
                f"1 to {DOMAIN_NAME_MAX} printable characters without a slash",
            )
        return untrusted

    @property
    def uuid(self) -> str:
        """The domain's UUID in lower case, in its usual form with four hyphens."""
        untrusted = self.string("c_info", "uuid")
        if untrusted is None or not re.match(_UUID, untrusted):
            raise self._wrong(("c_info", "uuid"), _shown(untrusted), "a UUID")
        return untrusted.lower()

    @property
    def max_vcpus(self) -> int:
        """How many vCPUs the domain can have (libxl's default: 1)."""
        return self.integer("b_info", "max_vcpus", minimum=1, maximum=MAX_VIRT_CPUS) or 1

    @property
    def max_memkb(self) -> int:
        """The most memory that the domain may have, KiB."""
        memkb = self.integer("b_info", "max_memkb", minimum=1, maximum=MEMKB_MAX)
        if memkb is None:
            raise self._wrong(("b_info", "max_memkb"), "is missing", "a number of KiB")
        return memkb

    @property
    def target_memkb(self) -> int:
        """The memory that the domain is meant to have, KiB (libxl's default: all of it)."""
        most = self.max_memkb
        memkb = self.integer("b_info", "target_memkb", minimum=1, maximum=most)
        return most if memkb is None else memkb

    @property
    def video_memkb(self) -> int | None:
        """Video memory, KiB; None where libxl chooses."""
        return self.integer("b_info", "video_memkb", maximum=MEMKB_MAX)

    @property
    def shadow_memkb(self) -> int | None:
        """Memory for paging structures, KiB; None where libxl chooses."""
        return self.integer("b_info", "shadow_memkb", maximum=MEMKB_MAX)

    def _wrong(self, path: tuple[str, ...], what: str, expected: str | None = None) -> StreamError:
        return _error(f"{'.'.join(path)} {what}", self.offset, expected)


def _shown(untrusted: str | None) -> str:
    return "is missing" if untrusted is None else f"is '{printable(untrusted, 60)}'"


def _error(message: str, offset: int, expected: str | None) -> StreamError:
    return StreamError(message, offset=offset, record=_NAME, expected=expected)
