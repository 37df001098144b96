"""How much memory a domain takes: libxl's arithmetic."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from libxlsr.formats import xl
from libxlsr.targets.xen import memory
from libxlsr.targets.xen.config import DomainConfig, read_config
from libxlsr.targets.xen.preflight import guest_type_problems, memory_problems
from libxlsr.xen.hostinfo import PhysInfo

HOST = PhysInfo(
    nr_cpus=2,
    max_cpu_id=1,
    nr_nodes=1,
    cpu_khz=2000000,
    total_bytes=4 << 30,
    free_bytes=1 << 30,
    scrub_bytes=0,
    outstanding_bytes=0,
    pv=True,
    hvm=True,
    hap=True,
    shadow=True,
    directio=False,
    grant_versions=2,
)


@pytest.fixture
def config(image_config: xl.Config) -> DomainConfig:
    return read_config(image_config)


def test_the_paging_pool(config: DomainConfig) -> None:
    # 256 pages a vCPU and one a MiB; a second one a MiB where pages are shadowed.
    assert memory.paging_memkb(config, hap=True) == 4 * (2 * 256 + 128)
    assert memory.paging_memkb(config, hap=False) == 4 * (2 * 256 + 2 * 128)
    assert memory.paging_memkb(replace(config, shadow_memkb=5), hap=True) == 5


def test_the_need_is_a_multiple_of_2_mib(config: DomainConfig) -> None:
    # 131072 for the guest, 2560 for its paging, 2048 for the rest: 66.25 times 2 MiB.
    assert memory.needed_memkb(config, hap=True) == 67 * 2048
    assert memory.needed_memkb(replace(config, shadow_memkb=0), hap=True) == 131072 + 2048


def test_claimed_memory_is_not_free(config: DomainConfig) -> None:
    need = memory.needed_memkb(config, hap=True)
    exactly = HOST._replace(free_bytes=need * 1024)
    assert memory.missing_memkb(config, exactly, hap=True) == 0
    assert memory.missing_memkb(config, exactly._replace(outstanding_bytes=4096), hap=True) == 4
    assert (
        memory.missing_memkb(config, exactly._replace(free_bytes=0, scrub_bytes=need * 1024), True)
        == 0
    )


def test_the_message_says_how_much_is_missing(config: DomainConfig) -> None:
    (problem,) = memory_problems(config, HOST._replace(free_bytes=100 << 20))
    assert "it needs 137216 KiB of memory and the host has 102400 KiB free" in problem
    assert "34816 KiB are missing" in problem


@pytest.mark.parametrize(
    ("kind", "lacks", "problem"),
    [
        ("pv", {"pv": False}, "no PV guests"),
        ("pvh", {"hvm": False}, "no PVH guests"),
        ("pvh", {"hap": False, "shadow": False}, "neither hardware-assisted nor shadow"),
    ],
)
def test_what_the_host_can_not_run(
    tree: dict[str, Any], kind: str, lacks: dict[str, bool], problem: str
) -> None:
    tree["c_info"]["type"] = kind
    config = read_config(xl.Config.from_json(tree))
    assert list(guest_type_problems(config, HOST)) == []
    (found,) = guest_type_problems(config, HOST._replace(**lacks))
    assert problem in found
