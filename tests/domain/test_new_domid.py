"""The id of a new domain, and that somebody owns the domain from then on."""

from __future__ import annotations

import pytest

from libxlsr.domain import create
from libxlsr.domain.config import read_config
from libxlsr.domain.libxl_files import domid_history
from libxlsr.errors import TargetError
from libxlsr.formats import xl
from libxlsr.testing.fake_xen import FakeXenHost
from libxlsr.xen.xenstore import Xenstore


@pytest.fixture(autouse=True)
def recent_ids(xen: FakeXenHost) -> None:
    """The ids 1 and 2 were in use a moment ago."""
    for domid in (1, 2):
        domid_history.mark_recent(domid, xen.run_dir)


def created(xen: FakeXenHost, store: Xenstore, image_config: xl.Config) -> int:
    with xen.open_xenctrl() as xenctrl:
        return create.create_domain(xenctrl, store, read_config(image_config), xen.run_dir)


def test_one_that_was_in_use_a_moment_ago_is_not_taken(
    xen: FakeXenHost, store: Xenstore, image_config: xl.Config
) -> None:
    assert created(xen, store, image_config) == 3
    assert [domain.domid for domain in xen.domains] == [3]


def test_a_domain_that_can_not_be_destroyed_has_an_owner(
    xen: FakeXenHost, store: Xenstore, image_config: xl.Config
) -> None:
    xen.fail("xc_domain_destroy")
    assert created(xen, store, image_config) == 1
    assert [domain.domid for domain in xen.domains] == [1]


def test_all_ids_were_in_use_a_moment_ago(
    xen: FakeXenHost, store: Xenstore, image_config: xl.Config
) -> None:
    for domid in range(3, create.CREATE_ATTEMPTS + 1):
        domid_history.mark_recent(domid, xen.run_dir)
    with pytest.raises(TargetError, match="100 domain ids in a row were in use"):
        created(xen, store, image_config)
    assert not xen.domains


def test_a_cpu_pool_that_is_not_there(
    xen: FakeXenHost, store: Xenstore, image_config: xl.Config
) -> None:
    assert create.cpupool_id(store, "Pool-0") == 0
    with pytest.raises(TargetError, match="there is no CPU pool 'fast' here"):
        create.cpupool_id(store, "fast")
