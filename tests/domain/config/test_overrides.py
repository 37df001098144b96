"""KEY=VALUE changes of the image's configuration."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from libxlsr.domain.config.overrides import apply_overrides, parse_override, parse_override_file
from libxlsr.errors import UsageError
from libxlsr.formats import xl


def change(config: xl.Config, *texts: str) -> xl.Config:
    return apply_overrides(config, [parse_override(text) for text in texts])


def test_the_image_keeps_its_own(image_config: xl.Config) -> None:
    assert change(image_config, "name=other").name == "other"
    assert image_config.name == "guest"


@pytest.mark.parametrize("text", ["name=other", "name = other", 'name="other"', "name='other'"])
def test_as_in_xl_cfg(image_config: xl.Config, text: str) -> None:
    assert change(image_config, text).name == "other"


def test_a_uuid_of_ones_own_and_a_new_one(image_config: xl.Config) -> None:
    wanted = str(uuid.uuid4())
    assert change(image_config, f"uuid={wanted}").uuid == wanted
    assert change(image_config, "uuid=new").uuid != image_config.uuid


def test_memory_is_in_mebibytes(image_config: xl.Config) -> None:
    changed = change(image_config, "memory=64")
    assert (changed.target_memkb, changed.max_memkb) == (65536, 131072)
    changed = change(image_config, "maxmem=256", "memory=200")
    assert (changed.target_memkb, changed.max_memkb) == (204800, 262144)


def test_more_memory_than_the_domain_can_have_is_refused(image_config: xl.Config) -> None:
    with pytest.raises(UsageError, match="128 MiB at the most; set maxmem=129 too"):
        change(image_config, "memory=129")


def test_fewer_vcpus_may_be_online_and_no_more(image_config: xl.Config) -> None:
    assert change(image_config, "vcpus=1").json["b_info"]["avail_vcpus"] == [0]
    with pytest.raises(UsageError, match="the image has 2 vCPUs"):
        change(image_config, "vcpus=3")


def test_a_place_in_libxls_json(image_config: xl.Config) -> None:
    changed = change(image_config, "b_info.tsc_mode=native", "b_info.type.pvh.x=[1, 2]")
    assert changed.json["b_info"]["tsc_mode"] == "native"
    assert changed.json["b_info"]["type.pvh"] == {"x": [1, 2]}


@pytest.mark.parametrize(
    "text",
    [
        "noequals",
        "=value",
        "memory=much",
        "memory=0",
        "vcpus=-1",
        "vcpus=1000000000000",
        "memory=0x" + "f" * 4000,
        "maxmem=5000000000",
        ".".join("a" * 5000) + "=1",
        "uuid=xyz",
        "colour=red",
        "b_info.max_memkb.deeper=1",
    ],
)
def test_what_does_not_fit_is_refused(image_config: xl.Config, text: str) -> None:
    with pytest.raises(UsageError):
        change(image_config, text)


def test_a_null_holds_members_as_what_is_not_there(tree: dict[str, Any]) -> None:
    tree["b_info"]["arch_x86"] = None
    changed = change(xl.Config.from_json(tree), "b_info.arch_x86.msr_relaxed=true")
    assert changed.json["b_info"]["arch_x86"] == {"msr_relaxed": True}


def test_what_is_nested_too_deeply_is_no_json(image_config: xl.Config) -> None:
    deep = "[" * 100_000
    assert change(image_config, f"b_info.cmdline={deep}").json["b_info"]["cmdline"] == deep


def test_a_file_of_them() -> None:
    text = "# for the test host\n\nname = 'other'\nmemory=64\n"
    assert parse_override_file(text) == [("name", "other"), ("memory", "64")]
