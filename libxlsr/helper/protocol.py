"""The messages between a helper's parent and child.

They travel over a Unix ``SOCK_SEQPACKET`` pair, one message a datagram, so there is no framing to
get wrong. Each is a JSON object with a ``kind``:

========  ==========  =====================================================================
kind      sent by     other members
========  ==========  =====================================================================
start     parent      ``args`` (object), ``fds`` (names of those that travel with the message)
log       child       ``level`` (of ``logging``), ``text``
progress  child       ``counters`` (object of integers)
call      child       ``name``, ``args`` (object): the child waits for the reply
reply     parent      ``value`` (object)
result    child       ``value`` (object): the worker returned
error     child       ``error`` (object: ``class`` and the fields of an error of libxlsr)
========  ==========  =====================================================================

The child runs libxenguest on hostile input, so the parent believes nothing: `decode` checks the
shape of each message, and anything else is a `ProtocolError`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from libxlsr.errors import (
    Aborted,
    BackendUnavailable,
    LibxlsrError,
    StreamError,
    TargetError,
    UsageError,
)

MESSAGE_MAX = 64 * 1024
"""The longest message in bytes; well below the default socket buffer (net.core.wmem_default)."""

FDS_MAX = 8
"""The most file descriptors that a start message brings."""

TEXT_MAX = 4096
"""The longest text of a log line or an error in characters; what is longer is cut."""

ERRNO_MAX = 4095
"""The kernel's MAX_ERRNO (include/linux/err.h)."""

OFFSET_MAX = 2**63 - 1
"""The largest off_t."""

Message = dict[str, Any]

_MEMBERS: Mapping[str, Mapping[str, type]] = {
    "start": {"args": dict, "fds": list},
    "log": {"level": int, "text": str},
    "progress": {"counters": dict},
    "call": {"name": str, "args": dict},
    "reply": {"value": dict},
    "result": {"value": dict},
    "error": {"error": dict},
}

_ERROR_FIELDS: Mapping[type[LibxlsrError], Mapping[str, type]] = {
    StreamError: {"offset": int, "record": str, "expected": str, "at_end": bool},
    TargetError: {"errno": int, "call": str, "last_log": str},
    UsageError: {},
    BackendUnavailable: {},
    Aborted: {},
}


class ProtocolError(Exception):
    """The other side said something that is no message."""


def encode(kind: str, **members: object) -> bytes:
    """The datagram of a message.

    Raises ValueError when it would be longer than `MESSAGE_MAX`.
    """
    data = json.dumps({"kind": kind, **members}, separators=(",", ":")).encode()
    if len(data) > MESSAGE_MAX:
        raise ValueError(f"a {kind} message of {len(data)} bytes, the most is {MESSAGE_MAX}")
    return data


def decode(datagram: bytes) -> Message:
    """The message in a datagram, its members checked for presence and type.

    Raises `ProtocolError` when it is none.
    """
    try:
        message = json.loads(datagram)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("not JSON") from error
    if not isinstance(message, dict):
        raise ProtocolError("not an object")
    members = _MEMBERS.get(str(message.get("kind")))
    if members is None:
        raise ProtocolError("of no known kind")
    for name, wanted in members.items():
        if type(message.get(name)) is not wanted:
            raise ProtocolError(f"a {message['kind']} message without a proper {name!r}")
    return message


def error_to_fields(error: LibxlsrError) -> dict[str, object]:
    """An error as the ``error`` member of a message."""
    kind = next((kind for kind in _ERROR_FIELDS if isinstance(error, kind)), TargetError)
    fields: dict[str, object] = {
        "class": kind.__name__,
        "message": error.message[:TEXT_MAX],
        "remedy": error.remedy,
    }
    for name in _ERROR_FIELDS[kind]:
        value = getattr(error, name, None)
        fields[name] = value[:TEXT_MAX] if isinstance(value, str) else value
    return fields


def _in_range(name: str, value: object) -> bool:
    """Whether a number can be what it is said to be; os.strerror() takes no larger errno."""
    if not isinstance(value, int):
        return True
    return 0 <= value <= (ERRNO_MAX if name == "errno" else OFFSET_MAX)


def error_from_fields(fields: Mapping[str, object]) -> LibxlsrError:
    """The error that `error_to_fields` described. Raises `ProtocolError` on anything else."""
    kinds = {kind.__name__: kind for kind in _ERROR_FIELDS}
    kind = kinds.get(str(fields.get("class")))
    if kind is None:
        raise ProtocolError("an error of no known class")
    message = fields.get("message")
    if not isinstance(message, str) or not message:
        raise ProtocolError("an error without a message")
    optional: dict[str, Any] = {}
    for name, wanted in {"remedy": str, **_ERROR_FIELDS[kind]}.items():
        value: object | None = fields.get(name)
        if value is not None and (type(value) is not wanted or not _in_range(name, value)):
            raise ProtocolError(f"an error without a proper {name!r}")
        optional[name] = value
    return kind(message, **optional)
