"""For every test: nothing is left behind. Fixtures that more than one directory uses."""

from __future__ import annotations

import logging
import os
import tempfile
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from libxlsr.events import Context
from libxlsr.testing.clock import FakeClock
from libxlsr.testing.leaks import Holdings

pytest_plugins = ["pytester"]

try:
    import hypothesis
except ImportError:  # the lab's dom0 has none, and its tests use none
    pass
else:
    # Nothing is timed in tests: a busy machine must not make one fail.
    hypothesis.settings.register_profile(
        "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def private_tmpdir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A TMPDIR of this process alone, so that a temporary file left in it is ours."""
    directory = str(tmp_path_factory.mktemp("TMPDIR"))
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = tempfile.tempdir = directory
    yield directory
    tempfile.tempdir = None
    if before is None:
        del os.environ["TMPDIR"]
    else:
        os.environ["TMPDIR"] = before


@pytest.fixture(autouse=True)
def nothing_leaks(private_tmpdir: str) -> Iterator[None]:
    """No fd, child process or temporary file outlives a test."""
    before = Holdings.now(private_tmpdir)
    yield
    leaked = before.leaked()
    if leaked:
        pytest.fail("left behind: " + "; ".join(leaked), pytrace=False)


@pytest.fixture(autouse=True)
def nothing_stays_registered() -> Iterator[None]:
    """In no context that a test makes is anything registered in the end."""
    made: weakref.WeakSet[Context] = weakref.WeakSet()
    init = Context.__init__

    def noted_init(context: Context, **options: Any) -> None:
        init(context, **options)
        made.add(context)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Context, "__init__", noted_init)
        yield
    left = [line for context in made for line in context.registered()]
    if left:
        pytest.fail("still registered: " + "; ".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """A command sets up the program's logger for its process, which here has other tests to run."""
    logger = logging.getLogger("libxlsr")
    before = logger.handlers, logger.propagate, logger.level
    yield
    logger.handlers, logger.propagate = before[:2]
    logger.setLevel(before[2])


@pytest.fixture
def clock() -> FakeClock:
    """The time of a context that is made with it; stands still."""
    return FakeClock()


@pytest.fixture
def ctx() -> Context:
    """A context on the real clock."""
    return Context()


@pytest.fixture
def fake_ctx(clock: FakeClock) -> Context:
    """A context on the ``clock`` fixture."""
    return Context(clock=clock)
