"""What a device model says on QMP is taken as far as it is QMP, and bounded."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libxlsr.domain.device_model import qmp
from libxlsr.domain.device_model.qmp import LineParser, QmpClient, QmpError
from libxlsr.errors import LibxlsrError
from libxlsr.events import Context
from libxlsr.testing.stepping import run_until

GREETING = {"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": ["oob"]}}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
messages = st.lists(st.dictionaries(st.text(), json_values, max_size=4), max_size=5)


@given(messages=messages, size=st.integers(1, 50))
def test_messages_come_out_whole_however_they_are_cut(
    messages: list[dict[str, Any]], size: int
) -> None:
    data = b"".join(json.dumps(message).encode() + b"\r\n" for message in messages)
    parser = LineParser()
    heard = []
    for start in range(0, len(data), size):
        heard += parser.feed(data[start : start + size])
    assert heard == messages


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_any_bytes_are_messages_or_no_qmp(pieces: list[bytes]) -> None:
    parser = LineParser()
    said = ""
    for piece in pieces:
        try:
            assert all(isinstance(message, dict) for message in parser.feed(piece))
        except QmpError as error:
            said = str(error)
            break
    assert said.isprintable()


@pytest.mark.parametrize(
    "line", [b"[1]\n", b"7\n", b'"QMP"\n', b"{\n", b"\xff\n", b"[" * 100_000 + b"\n", b"NaN\n"]
)
def test_what_is_no_object_is_no_qmp(line: bytes) -> None:
    with pytest.raises(QmpError, match="not QMP"):
        LineParser().feed(line)


def test_a_line_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qmp, "LINE_MAX", 100)
    parser = LineParser()
    parser.feed(b" " * 60)
    with pytest.raises(QmpError, match="more than 100 bytes"):
        parser.feed(b" " * 60)


class Model:
    """The other end: a device model whose words the test chooses."""

    def __init__(self, path: str) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.peer: socket.socket | None = None
        self._lines: Iterator[bytes] | None = None

    def accept(self) -> None:
        self.peer, _ = self.listener.accept()
        self._lines = iter(self.peer.makefile("rb"))

    def say(self, *said: object) -> None:
        assert self.peer is not None
        for message in said:
            line = message if isinstance(message, bytes) else json.dumps(message).encode()
            self.peer.sendall(line + b"\r\n")

    def hear(self) -> Any:
        assert self._lines is not None
        return json.loads(next(self._lines))

    def close(self) -> None:
        self.listener.close()
        if self.peer is not None:
            self._lines = None
            self.peer.close()


class Heard:
    """What the client was told: answers, and the loss of the connection."""

    def __init__(self) -> None:
        self.answers: list[tuple[Any, LibxlsrError | None]] = []
        self.lost: list[LibxlsrError] = []

    def answer(self, value: Any, error: LibxlsrError | None) -> None:
        self.answers.append((value, error))


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "qmp")


@pytest.fixture
def model(path: str) -> Iterator[Model]:
    made = Model(path)
    yield made
    made.close()


@pytest.fixture
def client(ctx: Context, path: str, heard: Heard) -> Iterator[QmpClient]:
    made = QmpClient(ctx, path, heard.lost.append)
    yield made
    made.close()


def connected(ctx: Context, client: QmpClient, model: Model, heard: Heard) -> None:
    assert client.connect(heard.answer)
    model.accept()
    model.say(GREETING)
    ctx_runs_until_written(ctx, client)
    asked = model.hear()
    assert asked["execute"] == "qmp_capabilities"
    model.say({"return": {}, "id": asked["id"]})
    run_until(ctx, lambda: bool(heard.answers))
    assert heard.answers.pop() == ({}, None)


def ctx_runs_until_written(ctx: Context, client: QmpClient) -> None:
    run_until(ctx, lambda: client._greeted and not client._outgoing)


def test_nobody_listens_yet(client: QmpClient, path: str, heard: Heard) -> None:
    assert not client.connect(heard.answer)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(path)
    stale.close()
    assert not client.connect(heard.answer)


def test_a_command_is_answered(ctx: Context, client: QmpClient, model: Model, heard: Heard) -> None:
    connected(ctx, client, model, heard)
    client.execute("query-status", heard.answer, detail=1)
    ctx_runs_until_written(ctx, client)
    asked = model.hear()
    assert (asked["execute"], asked["arguments"]) == ("query-status", {"detail": 1})
    model.say({"event": "RESUME"}, {"return": {"status": "running"}, "id": asked["id"]})
    run_until(ctx, lambda: bool(heard.answers))
    assert heard.answers == [({"status": "running"}, None)]


def test_a_command_is_refused(ctx: Context, client: QmpClient, model: Model, heard: Heard) -> None:
    connected(ctx, client, model, heard)
    client.execute("cont", heard.answer)
    ctx_runs_until_written(ctx, client)
    asked = model.hear()
    model.say({"error": {"class": "GenericError", "desc": "no\x1b[2J"}, "id": asked["id"]})
    run_until(ctx, lambda: bool(heard.answers))
    ((value, error),) = heard.answers
    assert value is None
    assert str(error) == "the device model says: no\\x1b[2J"


@pytest.mark.parametrize(
    "said",
    [
        {"return": {}, "id": 1000},
        {"return": {}},
        {"error": {"desc": "of nothing"}},
        {"neither": 1},
        b"rubbish",
    ],
)
def test_what_was_not_asked_breaks_the_connection(
    ctx: Context, client: QmpClient, model: Model, heard: Heard, said: object
) -> None:
    connected(ctx, client, model, heard)
    client.execute("query-status", heard.answer)
    model.say(said)
    run_until(ctx, lambda: bool(heard.lost))
    assert heard.answers == []
    assert ctx.registered() == []


def test_a_guessed_answer_to_nothing(
    ctx: Context, client: QmpClient, model: Model, heard: Heard
) -> None:
    connected(ctx, client, model, heard)
    model.say({"return": {}, "id": 1}, {"return": {}, "id": 2})
    run_until(ctx, lambda: bool(heard.lost))
    assert heard.answers == []


def test_a_wrong_greeting(ctx: Context, client: QmpClient, model: Model, heard: Heard) -> None:
    assert client.connect(heard.answer)
    model.accept()
    model.say({"return": {}})
    run_until(ctx, lambda: bool(heard.lost))
    assert "greet" in str(heard.lost[0])


def test_it_hangs_up(ctx: Context, client: QmpClient, model: Model, heard: Heard) -> None:
    connected(ctx, client, model, heard)
    model.close()
    run_until(ctx, lambda: bool(heard.lost))
    assert "broke" in str(heard.lost[0])
