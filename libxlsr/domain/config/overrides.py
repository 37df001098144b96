"""What a caller changes in the image's configuration: ``KEY=VALUE``, as text or in a file.

A key is one of xl.cfg's (``name``, ``uuid``, ``memory``, …) or the place of a member in libxl's
JSON, such as ``b_info.tsc_mode``. What a place holds is JSON; what is not JSON is a string.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Callable

from libxlsr.domain.config.reader import without_nulls
from libxlsr.errors import StreamError, UsageError
from libxlsr.formats import xl
from libxlsr.formats.xl_config import MAX_VIRT_CPUS, MEMKB_MAX

_Change = Callable[[dict[str, Any], str, str], None]


def parse_override(text: str) -> tuple[str, str]:
    """("KEY", "VALUE") of one ``KEY=VALUE``. Raises UsageError."""
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key:
        raise UsageError(f"{text!r} is not KEY=VALUE")
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return key, value


def parse_override_file(text: str) -> list[tuple[str, str]]:
    """The ``KEY=VALUE`` lines of a file; empty lines and lines that start with # are skipped."""
    lines = (line.strip() for line in text.splitlines())
    return [parse_override(line) for line in lines if line and not line.startswith("#")]


def apply_overrides(config: xl.Config, changes: Iterable[tuple[str, str]]) -> xl.Config:
    """The configuration with the changes made, in their order.

    A null of the configuration counts as missing (`without_nulls`). Raises UsageError for a key
    that is not known or a value that does not fit it.
    """
    tree = without_nulls(config.json)
    for key, value in changes:
        if "." in key:
            _set_place(tree, key, value)
        elif key in _XL_KEYS:
            _XL_KEYS[key](tree, key, value)
        else:
            known = ", ".join(sorted(_XL_KEYS))
            raise UsageError(
                f"configuration key {key!r} can't be overridden",
                remedy=f"known are {known}, and a place in libxl's JSON such as b_info.tsc_mode",
            )
    try:
        return xl.Config.from_json(tree)
    except StreamError as error:
        raise UsageError(f"the overridden configuration is wrong: {error.message}") from error
    except RecursionError:
        raise UsageError("the overridden configuration is wrong: nested too deeply") from None


def _set_place(tree: dict[str, Any], key: str, value: str) -> None:
    # "type.pvh" is one member's name in libxl's JSON, dot and all.
    path = key.replace(".type.", ".type\0").split(".")
    node = tree
    for part in path[:-1]:
        below = node.setdefault(part.replace("\0", "."), {})
        if not isinstance(below, dict):
            raise UsageError(f"configuration key {key!r}: {part!r} holds no members")
        node = below
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):  # not JSON, or nothing that a configuration could hold
        parsed = value
    node[path[-1].replace("\0", ".")] = parsed


def _member(tree: dict[str, Any], name: str) -> dict[str, Any]:
    member = tree.setdefault(name, {})
    if not isinstance(member, dict):
        raise UsageError(f"the configuration's {name} is not an object")
    return member


def _number(key: str, value: str, maximum: int) -> int:
    try:
        number = int(value, 0)
    except ValueError:
        number = 0
    if not 1 <= number <= maximum:
        raise UsageError(f"{key}={value}: not a whole number from 1 to {maximum}")
    return number


def _string(section: str, member: str) -> _Change:
    def change(tree: dict[str, Any], _key: str, value: str) -> None:
        _member(tree, section)[member] = value

    return change


def _uuid(tree: dict[str, Any], key: str, value: str) -> None:
    if value == "new":
        chosen = uuid.uuid4()
    else:
        try:
            chosen = uuid.UUID(value)
        except ValueError:
            raise UsageError(f'{key}={value}: neither a UUID nor "new"') from None
    _member(tree, "c_info")["uuid"] = str(chosen)


def _memory(tree: dict[str, Any], key: str, value: str) -> None:
    b_info = _member(tree, "b_info")
    target = _number(key, value, MEMKB_MAX // 1024) * 1024
    b_info["target_memkb"] = target
    most = b_info.get("max_memkb")
    if isinstance(most, int) and most < target:
        raise UsageError(
            f"{key}={value}: the domain can have {most // 1024} MiB at the most",
            remedy=f"set maxmem={value} too, before it",
        )


def _maxmem(tree: dict[str, Any], key: str, value: str) -> None:
    b_info = _member(tree, "b_info")
    # What libxl's default for the target would follow stays what it was.
    b_info.setdefault("target_memkb", b_info.get("max_memkb"))
    b_info["max_memkb"] = _number(key, value, MEMKB_MAX // 1024) * 1024


def _vcpus(tree: dict[str, Any], key: str, value: str) -> None:
    b_info = _member(tree, "b_info")
    count = _number(key, value, MAX_VIRT_CPUS)
    most = b_info.get("max_vcpus", 1)
    if isinstance(most, int) and count > most:
        raise UsageError(f"{key}={value}: the image has {most} vCPUs, and no more can be online")
    b_info["avail_vcpus"] = list(range(count))


_XL_KEYS: Mapping[str, _Change] = {
    "name": _string("c_info", "name"),
    "uuid": _uuid,
    "pool": _string("c_info", "pool_name"),
    "memory": _memory,
    "maxmem": _maxmem,
    "vcpus": _vcpus,
}
