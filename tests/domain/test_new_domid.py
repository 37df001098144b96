"""The id of a new domain, and that somebody owns the domain from then on."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from libxlsr.domain import create
from libxlsr.domain.config import read_config
from libxlsr.domain.libxl_files import domid_history
from libxlsr.errors import TargetError
from libxlsr.formats import xl

from .fake_host import FakeXenctrl, FakeXenstore

RECENT = 2
"""The ids 1 and 2 were in use a moment ago."""


class Counting(FakeXenctrl):
    """Gives each id once, as Xen does for as long as it can."""

    last = 0
    fails: TargetError | None = None

    def domain_create(self, _wanted: object) -> int:
        self.last += 1
        return self.create(uuid.UUID(int=0), self.last)

    def domain_destroy(self, domid: int) -> None:
        if self.fails is not None:
            raise self.fails
        super().domain_destroy(domid)


@pytest.fixture(autouse=True)
def recent_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create, "creation_of", lambda *_args: None)
    monkeypatch.setattr(domid_history, "is_recent", lambda domid, _run_dir: domid <= RECENT)


def created(xenctrl: Any, image_config: xl.Config) -> int:
    store: Any = FakeXenstore()
    return create.create_domain(xenctrl, store, read_config(image_config), Path("/nowhere"))


def test_one_that_was_in_use_a_moment_ago_is_not_taken(image_config: xl.Config) -> None:
    xenctrl = Counting()
    assert created(xenctrl, image_config) == RECENT + 1
    assert list(xenctrl.by_id) == [RECENT + 1]


def test_a_domain_that_can_not_be_destroyed_has_an_owner(image_config: xl.Config) -> None:
    xenctrl = Counting()
    xenctrl.fails = TargetError("could not destroy domain 1")
    assert created(xenctrl, image_config) == 1
    assert list(xenctrl.by_id) == [1]
