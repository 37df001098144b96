"""How a call into a fake Xen fails."""

from __future__ import annotations

import os


class XenFailure(Exception):
    """The call fails with this errno."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number
