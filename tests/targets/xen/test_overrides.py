"""KEY=VALUE changes of the image's configuration."""

from __future__ import annotations

import uuid

import pytest

from libxlsr.errors import UsageError
from libxlsr.formats import xl
from libxlsr.targets.xen.overrides import apply_overrides, parse_override, parse_override_file


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
        "uuid=xyz",
        "colour=red",
        "b_info.max_memkb.deeper=1",
    ],
)
def test_what_does_not_fit_is_refused(image_config: xl.Config, text: str) -> None:
    with pytest.raises(UsageError):
        change(image_config, text)


def test_a_file_of_them() -> None:
    text = "# for the test host\n\nname = 'other'\nmemory=64\n"
    assert parse_override_file(text) == [("name", "other"), ("memory", "64")]
