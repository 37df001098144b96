"""A program: runs libxlsr's command line, then prints the peaks of resident memory in KiB as JSON.

``own`` is VmHWM (proc(5)), which starts anew when a program is executed. ``helper`` is ru_maxrss
of the child (getrusage(2)). That starts with what this process had when it started the child, so
it may be too much, never too little.
"""

from __future__ import annotations

import json
import resource
import sys

from libxlsr.cli.main import main


def _own_peak() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


if __name__ == "__main__":
    code = main(sys.argv[1:])
    helper = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({"own": _own_peak(), "helper": helper}))
    sys.exit(code)
