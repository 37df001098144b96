"""``python -m libxlsr``: the command line."""

from __future__ import annotations

import sys

from libxlsr.cli.program import program

if __name__ == "__main__":
    sys.exit(program())
