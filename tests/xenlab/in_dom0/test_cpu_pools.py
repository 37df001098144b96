"""A guest in a CPU pool with another scheduler than the host's."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from libxlsr.restoring.options import RestoreOptions

from .guests import xl
from .restoring import restore_file
from .tiny_guests import TinyGuest

POOL = "lab-pool"


@pytest.fixture
def credit_pool() -> Iterator[None]:
    """The second CPU in a pool of its own, under credit; Xen's default is credit2."""
    assert re.search(r"Pool-0.*credit2", xl("cpupool-list"))
    xl("cpupool-cpu-remove", "Pool-0", "1")
    try:
        xl("cpupool-create", f'name="{POOL}"', 'sched="credit"', 'cpus=["1"]')
        try:
            yield
        finally:
            xl("cpupool-destroy", POOL)
    finally:
        xl("cpupool-cpu-add", "Pool-0", "1")


@pytest.mark.usefixtures("credit_pool")
def test_the_pools_scheduler_takes_the_weight(tiny: TinyGuest) -> None:
    weight = ("b_info.sched_params.weight", "300")
    restore_file(tiny.image, RestoreOptions(overrides=[("pool", POOL), weight]))
    try:
        tiny.wait_until_it_goes_on()
        assert re.search(rf"{tiny.name}\s+\d+\s+300\s+0", xl("sched-credit", "-d", tiny.name))
    finally:
        tiny.destroy()  # before its pool
