"""Fixtures of the tests that need a real Xen host; ``pytest tests/xenlab --xen 4.17`` runs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .guests import SavedGuest, provide_tiny_guest, saved_linux
from .host import Host, boot, running_host
from .project import install_project
from .recipe import RECIPES
from .residue import residue

# These run inside dom0, where test_in_dom0.py starts them.
collect_ignore = [] if Path("/proc/xen/capabilities").exists() else ["in_dom0"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("xenlab")
    group.addoption("--xen", choices=sorted(RECIPES), default="4.17", help="Xen's release")
    group.addoption(
        "--own-host",
        action="store_true",
        help="boot a lab for this run even if one is up",
    )


@pytest.fixture(scope="session")
def xen_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A Xen host of this run's own, or the lab that is up if it is of today's recipe and free."""
    xen: str = request.config.getoption("--xen")
    host = None if request.config.getoption("--own-host") else running_host(xen)
    if host is not None and host.image_digest == RECIPES[xen].digest:
        with host.claimed() as free:
            if free:
                yield host
                return
    host = boot(xen)
    try:
        yield host
        if request.session.testsfailed:
            print(host.console_tail())
    finally:
        host.shut_down()


@pytest.fixture(scope="session")
def installed_host(xen_host: Host) -> Host:
    """The host with this tree's libxlsr installed in its dom0."""
    install_project(xen_host)
    return xen_host


@pytest.fixture(scope="session")
def saved_pv(xen_host: Host) -> SavedGuest:
    return saved_linux(xen_host, "pv")


@pytest.fixture(scope="session")
def saved_pvh(xen_host: Host) -> SavedGuest:
    return saved_linux(xen_host, "pvh")


@pytest.fixture(scope="session")
def tiny_host(xen_host: Host) -> Host:
    """The host with the tiny guest's file in its place."""
    provide_tiny_guest(xen_host)
    return xen_host


@pytest.fixture
def nothing_left(xen_host: Host) -> Iterator[None]:
    """The test leaves the host as it found it."""
    before = residue(xen_host)
    yield
    assert residue(xen_host) == before
