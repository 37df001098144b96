"""A helper's worker in its child, with the libraries of a fake host instead of Xen's."""

from __future__ import annotations

import importlib
import inspect
import os
from typing import Any

from libxlsr.helper.child import Channel
from libxlsr.testing.fake_xen.libraries import Libraries, libraries
from libxlsr.testing.fake_xen.remote import connect

ADDRESS = "LIBXLSR_FAKE_XEN"
"""The environment variable with the socket of the host's state."""

WORKER = "LIBXLSR_FAKE_XEN_WORKER"
"""The environment variable with the worker to run."""


def run(channel: Channel) -> dict[str, Any]:
    """Run it."""
    return run_worker(os.environ[WORKER], channel, libraries(connect(os.environ[ADDRESS])))


def run_worker(worker: str, channel: Channel, xen: Libraries) -> dict[str, Any]:
    """What the worker returns, given those of the libraries that it takes."""
    run = importlib.import_module(worker).run
    takes = inspect.signature(run).parameters
    given = {name: library for name, library in xen._asdict().items() if name in takes}
    result: dict[str, Any] = run(channel, **given)
    return result
