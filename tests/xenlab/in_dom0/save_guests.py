"""Saves guests that tests restore: ``python -m tests.xenlab.in_dom0.save_guests pv hvm-tiny …``.

Each is named as the tests name it: a kind of guests.py, ``tiny-pvh``, ``hvm-`` and one of
hvm_guests.py, or a kind and a disk of device_guests.py.
"""

from __future__ import annotations

import sys

from .device_guests import saved_device_guest
from .guests import Guest, saved_guest
from .hvm_guests import saved_hvm_guest
from .tiny_guests import saved_tiny_pvh

# On a busy machine libxl's own time limits pass: ten seconds for a disk's script.
ATTEMPTS = 3


def saved(name: str) -> Guest:
    """The guest of this name, saved by xl; made now if it is not there."""
    if name == "tiny-pvh":
        return saved_tiny_pvh()
    kind, _, rest = name.partition("-")
    if not rest:
        return saved_guest(kind)
    if kind == "hvm":
        return saved_hvm_guest(rest)
    return saved_device_guest(kind, rest)


def save(name: str) -> None:
    """Save it. Raises what went wrong the last of ATTEMPTS times."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            saved(name)
        except AssertionError:
            if attempt == ATTEMPTS:
                raise
        else:
            return


if __name__ == "__main__":
    for each in sys.argv[1:]:
        save(each)
