"""Invariant: any datagram is a message with the members of its kind, which means the same when it
is sent again, or a ProtocolError; so is the error in it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from libxlsr.errors import StreamError, TargetError, UsageError
from libxlsr.helper import protocol

_KINDS = {"start", "log", "progress", "call", "reply", "result", "error"}


def check(data: bytes) -> None:
    try:
        message = protocol.decode(data)
    except protocol.ProtocolError as error:
        assert str(error).isprintable()
        return
    assert message["kind"] in _KINDS
    try:
        again = protocol.encode(**message)
    except ValueError:  # longer than a message may be, once it is in ASCII
        assert len(json.dumps(message)) > protocol.MESSAGE_MAX
    else:
        assert _sorted(protocol.decode(again)) == _sorted(message)
    if message["kind"] == "error":
        _check_error(message["error"])


def _sorted(message: protocol.Message) -> str:
    """As text, because NaN is not equal to itself."""
    return json.dumps(message, sort_keys=True)


def _check_error(fields: dict[str, object]) -> None:
    try:
        error = protocol.error_from_fields(fields)
    except protocol.ProtocolError as refused:
        assert str(refused).isprintable()
        return
    str(error)
    again = protocol.error_from_fields(protocol.error_to_fields(error))
    assert type(again) is type(error)


def seeds() -> Mapping[str, bytes]:
    errors = (
        StreamError("short", offset=3, record="END", expected="more", remedy="get it"),
        TargetError("no", errno=28, call="write", last_log="xc: error"),
        UsageError("both"),
    )
    messages = {
        "start": protocol.encode("start", args={"prefix": ""}, fds=["fd"]),
        "log": protocol.encode("log", level=20, text="xc: info"),
        "progress": protocol.encode("progress", counters={"bytes": 4096}),
        "call": protocol.encode("call", name="checkpoint", args={"consumed": 12}),
        "reply": protocol.encode("reply", value={"reply": 1, "offset": 64}),
        "result": protocol.encode("result", value={}),
    }
    for error in errors:
        fields = protocol.error_to_fields(error)
        messages[type(error).__name__] = protocol.encode("error", error=fields)
    return messages
