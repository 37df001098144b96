"""dom0 gives memory up for a domain, and gets it back; xenstore is a dictionary."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Callable, TypeVar, cast

import pytest

from libxlsr.domain import memory
from libxlsr.domain.ballooning import BALLOON_POLL, BALLOON_ROUNDS, BALLOON_TIMEOUT, ballooning
from libxlsr.domain.config import DomainConfig, read_config
from libxlsr.domain.undo import Undo
from libxlsr.errors import Aborted, LibxlsrError, TargetError
from libxlsr.events import Context
from libxlsr.events.chain import Chain
from libxlsr.formats import xl
from libxlsr.testing.clock import FakeClock
from libxlsr.testing.stepping import run_until_idle

T = TypeVar("T")
TARGET, STATIC_MAX = "/local/domain/0/memory/target", "/local/domain/0/memory/static-max"
DOM0_KIB, DOM0_MAX_KIB = 1 << 20, 2 << 20
SHORT_OF_KIB = 50 * 1024


class Host:
    """A host that lacks 50 MiB for the domain; it is the hypervisor and xenstore at once."""

    def __init__(self, config: DomainConfig) -> None:
        self.nodes: dict[str, str] = {}
        self.free = memory.needed_memkb(config, hap=True) - SHORT_OF_KIB

    def obey(self) -> None:
        """dom0 comes down to its target."""
        self.free += DOM0_KIB - int(self.nodes[TARGET])

    def physinfo(self) -> Any:
        return SimpleNamespace(allocatable_bytes=self.free * 1024, hap=True)

    def domain_info(self, _domid: int) -> Any:
        return SimpleNamespace(total_bytes=DOM0_KIB * 1024, max_bytes=DOM0_MAX_KIB * 1024)

    def read(self, path: str) -> str | None:
        return self.nodes.get(path)

    def write(self, path: str, value: str) -> None:
        self.nodes[path] = value

    def transact(self, body: Callable[[Host], T]) -> T:
        return body(self)


class Run:
    """One ballooning, on a clock that stands still."""

    def __init__(self, image_config: xl.Config) -> None:
        self.clock = FakeClock()
        self.ctx = Context(clock=self.clock)
        self.undo = Undo()
        self.config = read_config(image_config)
        self.host = Host(self.config)
        self.errors: list[LibxlsrError | None] = []

    def start(self) -> None:
        host = cast(Any, self.host)
        steps = ballooning(self.ctx, host, host, self.config, self.undo)
        self.chain = Chain(self.ctx, steps, self.errors.append, doing="make room")
        self.chain.start()
        run_until_idle(self.ctx)

    def taken_back(self) -> list[LibxlsrError]:
        """Takes it back; what could not be."""
        errors: list[LibxlsrError] = []
        self.undo.run(errors.extend)
        return errors

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        run_until_idle(self.ctx)


@pytest.fixture
def balloon(image_config: xl.Config) -> Run:
    return Run(image_config)


def test_a_host_with_room_is_left_alone(balloon: Run) -> None:
    balloon.host.free += SHORT_OF_KIB
    balloon.start()
    assert (balloon.errors, balloon.host.nodes) == ([None], {})


def test_it_waits_until_dom0_has_obeyed(balloon: Run) -> None:
    balloon.start()
    assert balloon.errors == []
    assert balloon.host.nodes == {
        TARGET: str(DOM0_KIB - SHORT_OF_KIB),
        STATIC_MAX: str(DOM0_MAX_KIB),
    }
    balloon.host.obey()
    balloon.wait(BALLOON_POLL)
    assert balloon.errors == [None]
    assert balloon.ctx.registered() == []


def test_it_asks_again_for_what_is_missing(balloon: Run) -> None:
    """dom0 had less than its target: it obeys, and too little is free."""
    balloon.start()
    balloon.host.free += SHORT_OF_KIB // 5
    balloon.wait(BALLOON_TIMEOUT)
    assert balloon.errors == []
    less = SHORT_OF_KIB * 9 // 5
    assert balloon.host.nodes[TARGET] == str(DOM0_KIB - less)
    balloon.host.free += SHORT_OF_KIB
    balloon.wait(BALLOON_POLL)
    assert balloon.errors == [None]
    assert balloon.taken_back() == []
    assert balloon.host.nodes[TARGET] == str(DOM0_KIB)


def test_memory_that_came_by_itself_is_not_dom0s(
    balloon: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another domain has gone between the look and the question."""

    def transact(body: Callable[[Host], Any]) -> Any:
        balloon.host.free += 2 * SHORT_OF_KIB
        return body(balloon.host)

    monkeypatch.setattr(balloon.host, "transact", transact)
    balloon.start()
    assert balloon.errors == [None]
    assert balloon.host.nodes[TARGET] == str(DOM0_KIB)


@pytest.mark.parametrize("end", ["too slow", "aborted", "a later step failed"])
def test_dom0_gets_it_back(balloon: Run, end: str) -> None:
    balloon.start()
    if end == "too slow":
        for _ in range(BALLOON_ROUNDS):
            balloon.wait(BALLOON_TIMEOUT)
        (error,) = balloon.errors
        assert f"{SHORT_OF_KIB} KiB are missing" in str(error)
    elif end == "aborted":
        balloon.chain.abort(Aborted())
        run_until_idle(balloon.ctx)
        assert isinstance(balloon.errors[0], Aborted)
    else:
        balloon.host.obey()
        balloon.wait(BALLOON_POLL)
        assert balloon.errors == [None]
    assert balloon.taken_back() == []
    assert balloon.host.nodes[TARGET] == str(DOM0_KIB)
    assert balloon.ctx.registered() == []


def test_what_somebody_else_chose_since_stays(balloon: Run) -> None:
    balloon.start()
    balloon.host.nodes[TARGET] = "777777"
    balloon.chain.abort(Aborted())
    run_until_idle(balloon.ctx)
    assert balloon.taken_back() == []
    assert balloon.host.nodes[TARGET] == "777777"


def test_dom0_keeps_the_least(balloon: Run) -> None:
    balloon.host.nodes[TARGET] = str(150 * 1024)
    balloon.start()
    assert isinstance(balloon.errors[0], TargetError)
    assert str(balloon.errors[0]).startswith(
        f"{SHORT_OF_KIB} KiB are missing, and dom0 can give up 22528 KiB at the most: it keeps 128"
    )
    assert balloon.host.nodes == {TARGET: str(150 * 1024)}
