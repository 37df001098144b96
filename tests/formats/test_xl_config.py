"""The domain configuration: hostile JSON is a StreamError, and accessors check what they give."""

from __future__ import annotations

import json
from typing import Any

import pytest

from libxlsr.errors import StreamError
from libxlsr.formats import xl
from libxlsr.formats.xl_config import CONFIG_MAX, DEPTH_MAX, Config
from libxlsr.testing.builder import config_json

BASE = 52


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        (b"", 0, "not terminated"),
        (b"{}", 1, "not terminated"),
        (b"\0", 0, "no JSON"),
        (b"{}\0\0", 2, "NUL inside"),
        (b'{"a": "\0"}\0', 7, "NUL inside"),
        (b'{"a": "\xff"}\0', 7, "no UTF-8"),
        (b"[]\0", 0, "no JSON object"),
        (b"1\0", 0, "no JSON object"),
        (b'{"a": 1,}\0', None, "no JSON"),
        ('{"ä": x}\0'.encode(), 7, "no JSON"),
        (b'{"a": 1, "a": 2}\0', 0, "key 'a' comes twice"),
        (b'{"b": {"x\\u001b": 1, "x\\u001b": 2}}\0', 0, r"key 'x\\x1b' comes twice"),
        (b'{"a": NaN}\0', 0, "no JSON number"),
        (b'{"a": -Infinity}\0', 0, "no JSON number"),
        (b'{"a": 1e999}\0', 0, "no whole number"),
        (b'{"a": 1.5}\0', 0, "no whole number"),
        (b'{"a": ' + b"9" * 5000 + b"}\0", 0, "5000 digits"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}\0", 0, "nested deeper"),
        (b'{"a": ' + b"[" * 200_000 + b"\0", 0, "nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\0", 0, "nested"),
        (b'{"a": "\\ud800"}\0', 0, "lone surrogate"),
        (b'{"\\udc00": 1}\0', 0, "lone surrogate"),
        (b'{"a": "' + b"x" * CONFIG_MAX + b'"}\0', 0, "at most 1048576 bytes"),
    ],
)
def test_hostile_json_is_refused(text: bytes, position: int | None, words: str) -> None:
    with pytest.raises(StreamError) as caught:
        Config.decode(text, BASE)
    assert words.replace("\\\\", "\\") in str(caught.value)
    if position is not None:
        assert caught.value.offset == BASE + position


def test_the_deepest_nesting_that_is_taken() -> None:
    inner = DEPTH_MAX - 2
    Config.decode(b'{"a": ' + b"[" * inner + b"1" + b"]" * inner + b"}\0")


def test_the_bytes_are_kept_as_they_came() -> None:
    raw = b'{ "c_info" :\t{"name":"\\u0061"}}  \n\0'
    config = Config.decode(raw)
    assert config.encode() == raw
    assert config.name == "a"
    assert config == Config.decode(raw, 99)
    assert hash(config) == hash(Config.decode(raw))


def with_values(**values: Any) -> Config:
    """A right configuration with ``section__key`` set to other values; None leaves it out."""
    whole = config_json("pvh", 1024, name="vm", vcpus=2)
    for path, value in values.items():
        section, key = path.split("__")
        if value is None:
            del whole[section][key]
        else:
            whole[section][key] = value
    return Config.from_json(whole)


def test_accessors_give_what_libxl_wrote() -> None:
    upper = "ABCDEF01-0000-0000-0000-FFFFFFFFFFFF"
    config = with_values(b_info__target_memkb=2048, c_info__uuid=upper)
    assert config.name == "vm"
    assert config.domain_type == "pvh"
    assert config.uuid == upper.lower()
    assert (config.max_vcpus, config.max_memkb, config.target_memkb) == (2, 4096, 2048)
    assert config.video_memkb is None
    assert config.shadow_memkb is None
    assert config.defbool("c_info", "run_hotplug_scripts") is False
    assert config.string("on_reboot") == "restart"
    assert config.string("nothing", "there") is None
    assert config.defbool("nothing") is None
    assert config.integer("nothing") is None
    assert config.value("b_info", "avail_vcpus") == [0, 1]


def test_defaults_are_libxls() -> None:
    config = with_values(b_info__max_vcpus=None, b_info__target_memkb=None)
    assert config.max_vcpus == 1
    assert config.target_memkb == config.max_memkb


@pytest.mark.parametrize(
    ("accessor", "path", "value", "words"),
    [
        ("name", "c_info__name", "", "is ''"),
        ("name", "c_info__name", None, "is missing"),
        ("name", "c_info__name", "../../etc/passwd", "without a slash"),
        ("name", "c_info__name", "a\nb", r"a\nb"),
        ("name", "c_info__name", "\u202egnp", r"\u202e"),
        ("name", "c_info__name", "\x1b[2J", r"\x1b[2J"),
        ("name", "c_info__name", "x" * 256, "1 to 255"),
        ("name", "c_info__name", 5, "is no string"),
        ("uuid", "c_info__uuid", None, "is missing"),
        ("uuid", "c_info__uuid", "0" * 36, "a UUID"),
        ("uuid", "c_info__uuid", "5c1f0a36-9b1e-4a53-8f2d-6d5d0b6f7a10\n", "a UUID"),
        ("domain_type", "c_info__type", "arm", "pv, pvh or hvm"),
        ("domain_type", "c_info__type", None, "is missing"),
        ("max_vcpus", "b_info__max_vcpus", 0, "1 to 8192"),
        ("max_vcpus", "b_info__max_vcpus", 8193, "1 to 8192"),
        ("max_vcpus", "b_info__max_vcpus", True, "no whole number"),
        ("max_vcpus", "b_info__max_vcpus", "2", "no whole number"),
        ("max_memkb", "b_info__max_memkb", None, "is missing"),
        ("max_memkb", "b_info__max_memkb", -1, "is -1"),
        ("max_memkb", "b_info__max_memkb", 2**64 - 1, "4398046511104"),
        ("target_memkb", "b_info__target_memkb", 4097, "1 to 4096"),
        ("video_memkb", "b_info__video_memkb", [], "no whole number"),
        ("shadow_memkb", "b_info__shadow_memkb", -1, "0 to"),
    ],
)
def test_accessors_refuse_what_libxl_never_writes(
    accessor: str, path: str, value: Any, words: str
) -> None:
    config = with_values(**{path: value})
    with pytest.raises(StreamError) as caught:
        getattr(config, accessor)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_path_through_something_else_than_an_object_is_refused() -> None:
    config = Config.decode(b'{"c_info": [1]}\0', BASE)
    with pytest.raises(StreamError, match="c_info is no object"):
        config.domain_type  # noqa: B018


def test_truth_values() -> None:
    config = Config.from_json({"a": "True", "b": True, "c": "<default>", "d": "yes", "e": [1]})
    assert config.defbool("a") is True
    assert config.defbool("b") is True
    assert config.defbool("c") is None
    for key in "de":
        with pytest.raises(StreamError, match="no truth value"):
            config.defbool(key)


def test_optional_data_keeps_a_tail_that_it_does_not_know() -> None:
    raw = json.dumps({}).encode() + b"\0"
    data = len(raw).to_bytes(4, "little") + raw + b"tail"
    decoded = xl.OptionalData.decode(data, 48)
    assert decoded.tail == b"tail"
    assert decoded.encode() == data
    header = xl.Header(optional_data_len=len(data))
    assert xl.decode_optional_data(header, data).raw == raw
    assert xl.Header.decode(header.encode()) == header


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no domain configuration"),
        (b"\1\0\0", "no domain configuration"),
        (b"\4\0\0\0{}\0", "length is 4"),
        (b"\xff\xff\xff\xff{}\0", "length is 4294967295"),
        (b"\0\0\0\x80{}\0", "length is 2147483648"),
        (b"\0\0\0\0", "not terminated"),
    ],
)
def test_a_configuration_that_is_not_there_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(StreamError) as caught:
        xl.OptionalData.decode(data, 48)
    assert words in str(caught.value)
    with pytest.raises(StreamError, match="bytes of optional data"):
        xl.decode_optional_data(xl.Header(optional_data_len=len(data) + 1), data)
