"""``libxlsr``: the commands, their exit codes, and the one line that an error gets.

Exit codes: 0 done; 1 the stream is bad; 2 wrong usage; 3 the machine can't; 4 aborted or timed out.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

import libxlsr
from libxlsr.cli import restore_command
from libxlsr.cli.report import Report
from libxlsr.errors import LibxlsrError

EXIT_CODES = """\
exit codes:
  0  done
  1  the stream is bad
  2  wrong usage
  3  the machine can't (no Xen, no permission, no space, …)
  4  aborted or timed out
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    _set_up_logging(options.verbose)
    report = Report(json=options.json)
    try:
        try:
            code: int = options.command(options, report)
        except LibxlsrError as error:
            report.error(error)
            code = error.exit_code
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone; what was done stays done.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="libxlsr",
        description="Reads a Xen guest's saved or migrating image.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"libxlsr {libxlsr.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    restore_command.add_parser(commands)
    return parser


def _set_up_logging(verbose: int) -> None:
    """Only this program's own loggers: `transitions` logs ten lines a transition at DEBUG."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("libxlsr: %(levelname)s: %(message)s"))
    logger = logging.getLogger("libxlsr")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel((logging.ERROR, logging.INFO, logging.DEBUG)[min(verbose, 2)])
