"""What the configuration in an image comes to, with libxl's defaults."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from libxlsr.domain.config import DomainConfig, read_config
from libxlsr.domain.config.domain import ALL_XENSTORE_FEATURES
from libxlsr.errors import StreamError
from libxlsr.formats import xl
from libxlsr.xen.scheduling import SchedParams


def read(tree: dict[str, Any]) -> DomainConfig:
    return read_config(xl.Config.from_json(tree))


def test_a_plain_guest(image_config: xl.Config) -> None:
    config = read_config(image_config)
    assert (config.domain_type, config.name) == ("pvh", "guest")
    assert config.uuid == uuid.UUID("13b086ae-4a23-480c-a9b5-26f262d4c7be")
    assert (config.max_vcpus, config.avail_vcpus) == (2, frozenset({0, 1}))
    assert (config.max_memkb, config.target_memkb, config.video_memkb) == (131072, 131072, 0)
    assert config.sched_params == SchedParams(weight=256, cap=0)
    assert config.hvm is None
    assert config.hvm_container


def test_what_libxl_leaves_out_has_libxls_default(image_config: xl.Config) -> None:
    config = read_config(image_config)
    assert config.event_channels == 1023
    assert (config.max_grant_frames, config.max_maptrack_frames) == (-1, -1)
    assert config.max_grant_version is None
    assert (config.tsc_mode, config.timer_mode) == (0, 1)
    assert config.msr_relaxed
    assert config.hap is None
    assert config.xenstore_feature_mask == ALL_XENSTORE_FEATURES
    assert not config.xend_suspend_evtchn_compat


@pytest.mark.parametrize(
    ("member", "value", "field", "expected"),
    [
        ("tsc_mode", "native", "tsc_mode", 2),
        ("timer_mode", "one_missed_tick_pending", "timer_mode", 3),
        ("max_grant_frames", 64, "max_grant_frames", 64),
        ("max_grant_frames", 0xFFFFFFFF, "max_grant_frames", -1),
        ("max_grant_version", 1, "max_grant_version", 1),
        ("arch_x86", {"msr_relaxed": "False"}, "msr_relaxed", False),
        ("nested_hvm", "True", "nested_hvm", True),
        ("avail_vcpus", [1], "avail_vcpus", {1}),
        ("cpumap", [0], "vcpu_hard_affinity", ({0}, {0})),
        ("vcpu_hard_affinity", [[0], [1, 2]], "vcpu_hard_affinity", ({0}, {1, 2})),
        ("sched_params", {"weight": -1, "extratime": -1}, "sched_params", SchedParams()),
        (
            "sched_params",
            {"sched": "rtds", "period": 20000, "budget": 5000, "extratime": 0},
            "sched_params",
            SchedParams(period=20000, budget=5000, extratime=False),
        ),
    ],
)
def test_what_it_says(
    tree: dict[str, Any], member: str, value: object, field: str, expected: object
) -> None:
    tree["b_info"][member] = value
    assert getattr(read(tree), field) == expected


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("tsc_mode", "native_paravirt"),
        ("timer_mode", "sometimes"),
        ("max_grant_frames", 1 << 31),
        ("avail_vcpus", [2]),
        ("avail_vcpus", [-1]),
        ("avail_vcpus", {"0": 1}),
        ("vcpu_hard_affinity", [[0]] * 3),
        ("sched_params", {"weight": 1 << 16}),
        ("sched_params", {"period": -2}),
        ("event_channels", -1),
        ("vmtrace_buf_kb", (1 << 22) - 3),
        ("video_memkb", 131073),
    ],
)
def test_nonsense_is_refused(tree: dict[str, Any], member: str, value: object) -> None:
    tree["b_info"][member] = value
    with pytest.raises(StreamError, match=member):
        read(tree)


@pytest.mark.parametrize("key", ["../../1/name", "/local/domain/0/x", "a//b", "", "a b", "a/../b"])
def test_xenstore_keys_stay_below_the_domain(tree: dict[str, Any], key: str) -> None:
    tree["c_info"]["xsdata"] = {key: "x"}
    with pytest.raises(StreamError, match="xsdata"):
        read(tree)


@pytest.mark.parametrize("key", ["vm", "name", "memory/target", "x" * 1025])
def test_keys_that_are_not_the_images(tree: dict[str, Any], key: str) -> None:
    tree["c_info"]["xsdata"] = {key: "x"}
    with pytest.raises(StreamError, match="xsdata has the key") as caught:
        read(tree)
    assert len(str(caught.value)) < 300
    tree["c_info"]["xsdata"] = {"vm-data/name": "x"}
    tree["c_info"]["platformdata"] = {"name": "x"}
    assert read(tree).platformdata == (("name", "x"),)


def test_a_long_name_is_cut_in_the_error(tree: dict[str, Any]) -> None:
    tree["b_info"]["tsc_mode"] = "n" * 100_000
    with pytest.raises(StreamError, match="tsc_mode") as caught:
        read(tree)
    assert len(str(caught.value)) < 300


def test_what_xenstore_holds_is_counted_in_bytes(tree: dict[str, Any]) -> None:
    tree["c_info"]["xsdata"] = {"key": "\u00e4" * 1025}
    with pytest.raises(StreamError, match="xsdata has a value that xenstore can't hold"):
        read(tree)


def test_devices_are_counted(tree: dict[str, Any]) -> None:
    tree["disks"] = [{}, {}]
    tree["nics"] = []
    assert read(tree).device_counts == {"disks": 2}


@pytest.mark.parametrize("kind", ["disks", "nics", "vkbs", "usbdevs"])
def test_a_device_that_is_no_object(tree: dict[str, Any], kind: str) -> None:
    tree[kind] = ["xvda"]
    with pytest.raises(StreamError, match=f"{kind} is not a list of objects"):
        read(tree)


def test_the_userdata_is_the_configuration_with_what_was_decided(tree: dict[str, Any]) -> None:
    written = read(tree).json
    assert written["b_info"].pop("video_memkb") == 0
    assert written["b_info"].pop("arch_x86") == {"msr_relaxed": "True"}
    assert written["c_info"].pop("domid") == 0xFFFFFFFF
    assert written == tree


@pytest.mark.parametrize(
    ("altp2m", "count", "expected"),
    [
        ({"altp2m": "mixed"}, None, (1, 10)),
        ({"altp2m": "limited"}, 0xFFFFFFFF, (3, 10)),
        ({"altp2m": "external"}, 4, (2, 4)),
        ({"altp2m": "disabled"}, 10, (0, 0)),
        ({"type.hvm": {"altp2m": "True"}}, None, (1, 10)),
        ({}, None, (0, 0)),
    ],
)
def test_the_count_of_alternate_p2ms(
    tree: dict[str, Any], altp2m: dict[str, Any], count: int | None, expected: tuple[int, int]
) -> None:
    """libxl leaves its default out; Xen 4.21 refuses a mode without a count, and the reverse."""
    tree["c_info"]["type"] = "hvm"
    tree["b_info"].update(altp2m, altp2m_count=count)
    config = read(tree)
    assert (config.altp2m_mode, config.altp2m_count) == expected


def test_more_alternate_p2ms_than_xen_can_count(tree: dict[str, Any]) -> None:
    tree["b_info"].update(altp2m="mixed", altp2m_count=0x10000)
    with pytest.raises(StreamError, match="altp2m_count is 65536"):
        read(tree)


def test_what_a_domain_of_xen_4_22_has_in_xenstored(tree: dict[str, Any]) -> None:
    quota = [{"name": "nodes", "val": 1000}, {"name": "memory-hard", "val": 4194304}, {"name": "x"}]
    tree["b_info"].update(xenstore_feature_mask=3, xenstore_quota={"quota": quota})
    config = read(tree)
    assert config.xenstore_feature_mask == 3
    assert config.xenstore_quota == (("nodes", 1000), ("memory-hard", 4194304), ("x", 0))


@pytest.mark.parametrize(
    "quota",
    [{"name": "no such/name"}, {"val": 1}, {"name": "n" * 65}, {"name": "nodes", "val": 1 << 32}],
)
def test_quota_that_can_not_be(tree: dict[str, Any], quota: dict[str, Any]) -> None:
    tree["b_info"]["xenstore_quota"] = {"quota": [quota]}
    with pytest.raises(StreamError, match="xenstore_quota"):
        read(tree)


def test_json_as_json_c_writes_it(tree: dict[str, Any]) -> None:
    """Xen 4.21 and newer: a slash has a backslash before it."""
    tree["disks"] = [{"vdev": "xvda", "pdev_path": "/srv/disk", "format": "raw"}]
    raw = json.dumps(tree).replace("/", r"\/").encode() + b"\0"
    assert rb'"\/srv\/disk"' in raw
    (disk,) = read_config(xl.Config.decode(raw)).disks
    assert disk.path == "/srv/disk"


@pytest.mark.parametrize("kind", ["pv", "pvh"])
def test_a_guest_without_a_device_model(tree: dict[str, Any], kind: str) -> None:
    """Xen 4.21 and newer write "unknown" where QEMU is not there (3c8fccd30d)."""
    tree["c_info"]["type"] = kind
    tree["b_info"]["device_model_version"] = "unknown"
    assert read(tree).unsupported == ()
