"""Configurations to restore."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from libxlsr.formats import xl
from libxlsr.testing.fake_xen import FakeXenHost
from libxlsr.xen.xenstore import Xenstore

UUID = "13b086ae-4a23-480c-a9b5-26f262d4c7be"


@pytest.fixture
def tree() -> dict[str, Any]:
    """A small PVH guest as libxl writes it down."""
    return {
        "c_info": {"type": "pvh", "name": "guest", "uuid": UUID, "run_hotplug_scripts": "True"},
        "b_info": {
            "max_vcpus": 2,
            "avail_vcpus": [0, 1],
            "max_memkb": 131072,
            "target_memkb": 131072,
            "sched_params": {"sched": "credit2", "weight": 256, "cap": 0},
            "type.pvh": {},
        },
        "on_soft_reset": "soft_reset",
    }


@pytest.fixture
def xen() -> Iterator[FakeXenHost]:
    """A host without processes."""
    with FakeXenHost(processes=False) as host:
        yield host


@pytest.fixture
def store(xen: FakeXenHost) -> Iterator[Xenstore]:
    """A connection to its xenstored."""
    with xen.open_xenstore() as connection:
        yield connection


@pytest.fixture
def image_config(tree: dict[str, Any]) -> xl.Config:
    """The same as it is in an image."""
    return xl.Config.from_json(tree)
