"""How much memory a domain takes: libxl's arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest

from libxlsr.domain import memory
from libxlsr.domain.config import DomainConfig, read_config
from libxlsr.domain.preflight import memory_problems
from libxlsr.formats import xl

from .hosts import HOST


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
