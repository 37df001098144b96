"""The program ``libxlsr``: the command line, in a process that is there for nothing else."""

from __future__ import annotations

import gc
import sys


def program() -> int:
    """Run the command line that the program was called with; returns the exit code."""
    # What is imported stays to the end. Looking through it for garbage, meanwhile, then again and
    # again, and as the interpreter ends, took a sixth of a short command's time.
    gc.disable()
    from libxlsr.cli.main import parse, run

    options = parse(sys.argv[1:])
    gc.freeze()
    gc.enable()
    return run(options)
