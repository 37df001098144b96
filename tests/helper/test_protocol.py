"""The helper's messages, without a helper."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libxlsr.errors import LibxlsrError, StreamError, TargetError, TimedOut
from libxlsr.helper import protocol
from libxlsr.testing.faulty_worker import ERRORS


def test_a_message_comes_back() -> None:
    datagram = protocol.encode("call", name="checkpoint", args={"consumed": 2**40})
    assert protocol.decode(datagram) == {
        "kind": "call",
        "name": "checkpoint",
        "args": {"consumed": 2**40},
    }


def test_a_message_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(ValueError, match="the most is 65536"):
        protocol.encode("log", level=10, text="x" * protocol.MESSAGE_MAX)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    try:
        message = protocol.decode(data)
    except protocol.ProtocolError:
        return
    assert message["kind"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: _JSON | st.sampled_from(sorted(ERRORS))
            for name in ("class", "message", "remedy", "offset", "record", "errno", "call")
        },
    )
)
def test_any_error_fields_are_an_error_or_a_protocol_error(fields: dict[str, object]) -> None:
    try:
        error = protocol.error_from_fields(fields)
    except protocol.ProtocolError:
        return
    assert isinstance(error, LibxlsrError)
    assert str(error)


def test_an_error_of_a_subclass_arrives_as_the_known_class() -> None:
    error = protocol.error_from_fields(protocol.error_to_fields(TimedOut("late")))
    assert error.message == "late"


def test_an_error_of_no_known_class_arrives_as_a_target_error() -> None:
    error = protocol.error_from_fields(protocol.error_to_fields(LibxlsrError("odd")))
    assert isinstance(error, TargetError)
    assert error.message == "odd"


def test_long_texts_are_cut() -> None:
    error = StreamError("m" * 10_000, offset=1, expected="e" * 10_000)
    fields = protocol.error_to_fields(error)
    assert len(str(fields["message"])) == len(str(fields["expected"])) == protocol.TEXT_MAX
