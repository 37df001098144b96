"""Children that can't be killed, as one in the kernel's uninterruptible sleep."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from libxlsr.events import Child
from libxlsr.helper.parent import Helper


@contextmanager
def unkillable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No signal reaches a child in the block, and it is given up soon; then it is killed."""
    spared: set[int] = set()
    give_up_after = Helper._give_up_after
    with monkeypatch.context() as patch:
        patch.setattr(Child, "kill", lambda self, _signum=9: spared.add(self.pid))
        patch.setattr(Helper, "_give_up_after", lambda self, _seconds: give_up_after(self, 0.0))
        yield
    for pid in spared:
        with suppress(ProcessLookupError):  # it may have noticed that nobody listens any more
            os.kill(pid, signal.SIGKILL)
