"""All of a fake host that its libraries share, whichever process they are in."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Callable, NamedTuple

from libxlsr.testing.fake_xen.failure import XenFailure
from libxlsr.testing.fake_xen.hypervisor import Hypervisor
from libxlsr.testing.fake_xen.xenstored import Xenstored


class CallMade(NamedTuple):
    """One call of a function of Xen's libraries; ``about`` is a path or a domain's id."""

    name: str
    about: str


class Fault(NamedTuple):
    """What goes wrong in a child: "fails", "hangs", "is-killed" or "asserts", after so much."""

    way: str
    after: int


class HostState:
    """The hypervisor, xenstored, and which calls fail."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = threading.RLock()
        """Held for each call: those of children come in threads of their own."""
        self.hypervisor = Hypervisor()
        self.xenstored = Xenstored(self.hypervisor)
        self.handles = 0
        """How many ``xc_interface`` are open here. A child's go with the child."""
        self.calls: list[CallMade] = []
        """Every call that was made, those of children too."""
        self.on_call: Callable[[CallMade], object] | None = None
        """Called before each call; what it raises (`XenFailure`) is how the call fails."""
        self.failing: dict[int, int] = {}
        """The errno of the calls that fail, by their place in ``calls``."""
        self.restore_fault: Fault | None = None
        """What goes wrong in libxenguest's restore, after so many records."""
        self.device_fault: Fault | None = None
        """What goes wrong in libxenlight, after so many devices."""

    def fail(self, name: str, number: int = errno.EIO, *, about: str = "", nth: int = 1) -> None:
        """The ``nth`` call of the function from now on fails; ``about`` may say of what."""
        left = nth

        def on_call(call: CallMade) -> None:
            nonlocal left
            if before is not None:
                before(call)
            if call.name == name and about in call.about:
                left -= 1
                if left == 0:
                    raise XenFailure(number)

        before, self.on_call = self.on_call, on_call

    # What the libraries ask, also from another process.

    def called(self, name: str, about: str) -> None:
        """A call begins. Raises XenFailure where it is to fail."""
        call = CallMade(name, about)
        self.calls.append(call)
        number = self.failing.get(len(self.calls) - 1)
        if number is not None:
            raise XenFailure(number)
        if self.on_call is not None:
            self.on_call(call)

    def directory(self) -> str:
        """Below it are the host's files."""
        return str(self.root)

    def fault(self, name: str) -> tuple[str, int] | None:
        """``restore_fault`` or ``device_fault``."""
        found: Fault | None = getattr(self, name)
        return found
