"""Restores the example image offline and reads a word of the guest's memory.

``read_counter.py [IMAGE]``: the guest is a loop that increments the 32-bit word at guest-physical
address 0x101000. No Xen and no root are needed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import libxlsr

IMAGE = Path(__file__).with_name("hvm-ticker-xen4.17.save.xz")
COUNTER = 0x101000


def main() -> None:
    """Restore and read."""
    image = sys.argv[1] if len(sys.argv) > 1 else IMAGE
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "guest"
        result = libxlsr.restore(image, target="image", output=output)
        print(f"{result.guest.name}: {sum(result.guest.pages.values())} frames")
        with open(output / "memory", "rb") as memory:
            counter = int.from_bytes(os.pread(memory.fileno(), 4, COUNTER), "little")
    print(f"the counter stands at {counter}")


if __name__ == "__main__":
    main()
