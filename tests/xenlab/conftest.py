"""Fixtures of the tests that need a real Xen host; ``pytest tests/xenlab --xen 4.17`` runs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from .dom0_tests import Dom0Tests
from .guests import SavedGuest, provide_tiny_guest, saved_linux
from .host import Host, running_host
from .pair import Pair, boot_pair, running_pair
from .project import install_project
from .recipe import RECIPES
from .residue import residue
from .snapshot import boot, is_of_today

_HOST = pytest.StashKey[Host]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("xenlab")
    group.addoption("--xen", choices=sorted(RECIPES), default="4.17", help="Xen's release")
    group.addoption(
        "--own-host",
        action="store_true",
        help="start a lab for this run even if one is up",
    )


def pytest_configure(config: pytest.Config) -> None:
    # In dom0 itself they run as any others.
    if not Path("/proc/xen/capabilities").exists():
        config.pluginmanager.register(Dom0Tests(lambda: _session_host(config)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    host = terminalreporter.config.stash.get(_HOST, None)
    if host is not None and terminalreporter.stats.get("failed"):
        terminalreporter.section("xenlab")
        terminalreporter.write_line(host.console_tail())


def _session_host(config: pytest.Config) -> Host:
    """The host of all tests of this run; started by the first that asks."""
    if _HOST not in config.stash:
        stack = ExitStack()
        config.add_cleanup(stack.close)
        config.stash[_HOST] = stack.enter_context(_host(config))
    return config.stash[_HOST]


@contextmanager
def _host(config: pytest.Config) -> Iterator[Host]:
    """The lab that is up if it is free, and from today's snapshot; or one of this run's own."""
    xen: str = config.getoption("--xen")
    host = None if config.getoption("--own-host") else running_host(xen)
    if host is not None and is_of_today(host):
        with host.claimed() as free:
            if free:
                yield host
                return
    host = boot(xen)
    try:
        yield host
    finally:
        host.shut_down()


@pytest.fixture(scope="session")
def xen_host(pytestconfig: pytest.Config) -> Host:
    """A Xen host: the lab that is up, or one of this run's own."""
    return _session_host(pytestconfig)


@pytest.fixture(scope="module")
def two_hosts(pytestconfig: pytest.Config) -> Iterator[Pair]:
    """Two hosts with a link between them: those that are up, or two of this module's own."""
    xen: str = pytestconfig.getoption("--xen")
    pair = None if pytestconfig.getoption("--own-host") else running_pair()
    if pair is not None and all(host.xen == xen and is_of_today(host) for host in pair.hosts):
        with pair.first.claimed() as free:
            if free:
                yield pair
                return
    pair = boot_pair(xen)
    yield pair
    pair.shut_down()


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
