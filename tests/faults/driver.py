"""The process that is put under strace: ``python driver.py IMAGE OUTPUT [STRACE'S ARGUMENTS]``.

It restores once to have everything imported, and then again, as a person would on the command line,
between two calls that mark this in strace's log. With further arguments it is not this
process that is traced but the second restore's helper: they are strace's, and the log is its own.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from libxlsr.cli.main import main
from libxlsr.testing.leaks import Holdings

BEGIN, END = "/here-the-restore-begins", "/here-the-restore-ends"
LEAKED = 99
"""The exit code that says that something was left open."""


def restore(image: str, output: str) -> int:
    """The exit code of ``libxlsr restore``."""
    try:
        return main(["restore", image, "--target", "image", "--output", output])
    except SystemExit as left:
        return int(left.code or 0)


def trace_helper(output: Path, arguments: list[str]) -> None:
    """Have the next helper run under strace."""
    script = output.parent / "python-under-strace"
    script.write_text(
        f'#!/bin/sh\nexec {shlex.join(arguments)} {shlex.quote(sys.executable)} "$@"\n'
    )
    script.chmod(0o700)
    sys.executable = str(script)


if __name__ == "__main__":
    image, output, *strace = sys.argv[1:]
    if restore(image, f"{output}-first"):
        sys.exit("the first restore failed")
    if strace:
        trace_helper(Path(output), strace)
    before = Holdings.now()
    os.path.exists(BEGIN)
    code = restore(image, output)
    os.path.exists(END)
    # A command that could not print lets go of its standard output.
    leaked = [line for line in before.leaked() if not line.startswith("fd 1:")]
    if leaked:
        sys.exit(f"{LEAKED}: left behind: {leaked}")
    sys.exit(code)
