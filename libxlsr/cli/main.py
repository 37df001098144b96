"""``libxlsr``: the commands, their exit codes, and the one line that an error gets.

Exit codes: 0 done; 1 the stream is bad; 2 wrong usage; 3 the machine can't; 4 aborted or timed out.
A command is aborted, too, when whoever reads standard output goes away before it is done. What was
done by then stays done, and its exit code says so.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

import libxlsr
from libxlsr.cli.report import OutputError, Report, one_line, printing
from libxlsr.errors import Aborted, LibxlsrError, TargetError

EXIT_CODES = """\
exit codes:
  0  done
  1  the stream is bad
  2  wrong usage
  3  the machine can't (no Xen, no permission, no space, …)
  4  aborted or timed out, or nobody reads the output any more
"""

_COMMANDS = {
    "restore": "libxlsr.cli.restore_command",
    "verify": "libxlsr.cli.verify_command",
    "inspect": "libxlsr.cli.inspect_command",
    "diff": "libxlsr.cli.diff_command",
    "extract": "libxlsr.cli.extract_command",
    "convert": "libxlsr.cli.convert_command",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run(parse(sys.argv[1:] if arguments is None else arguments))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """What the command line asks for, with what its command needs imported."""
    try:
        return _parser(arguments).parse_args(arguments)
    except BrokenPipeError:
        _drop_output()
        sys.exit(Aborted.exit_code)
    except OutputError as error:
        sys.exit(_output_lost(error))


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    report = Report(json=options.json)
    code: int = Aborted.exit_code  # unless the command comes to its end
    try:
        try:
            code = options.command(options, report)
        except LibxlsrError as error:
            code = error.exit_code
            report.error(error)
        except (OutputError, BrokenPipeError):
            raise
        except (MemoryError, OSError) as error:
            code = TargetError.exit_code
            report.error(TargetError.from_unexpected(error))
        except KeyboardInterrupt as interrupt:  # where it is no event of a loop (cli/signals.py)
            report.error(Aborted(f"aborted by {str(interrupt) or 'SIGINT'}"))
        with printing():
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has gone
        _drop_output()
    except OutputError as error:
        return _output_lost(error)
    return code


class _Formatter(argparse.HelpFormatter):
    """Knows the terminal's width without shutil, which argparse would import for each command's
    arguments, and the decompressors with it."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **{"width": max(_columns(), 20) - 2, **options})


class _RawFormatter(_Formatter, argparse.RawDescriptionHelpFormatter):
    """The same, and leaves the lines of descriptions as they are."""


class _Parser(argparse.ArgumentParser):
    """The program's, and a command's."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": _Formatter, **options})

    def _print_message(self, message: str, file: Any = None) -> None:
        """Where standard output can't be written, argparse itself says nothing."""
        if file is not sys.stdout:
            super()._print_message(message, file)
            return
        with printing():
            file.write(message)
            file.flush()

    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))


def _output_lost(error: OutputError) -> int:
    """Say that standard output can't be written; the exit code."""
    _drop_output()
    Report(json=False).error(TargetError.from_oserror(error, "can't write to standard output"))
    return TargetError.exit_code


def _columns() -> int:
    """The terminal's width."""
    with suppress(ValueError):
        columns = int(os.environ.get("COLUMNS", ""))
        if columns > 0:
            return columns
    try:
        return os.get_terminal_size().columns
    except OSError:  # no terminal
        return 80


def _drop_output() -> None:
    """Let nothing that waits to be printed fail again when the interpreter ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for ``arguments``: of one command only where they name one.

    Each command brings what it needs: half of a short command's time would go into the others'.
    """
    parser = _Parser(
        prog="libxlsr",
        description="Reads a Xen guest's saved or migrating image.",
        epilog=EXIT_CODES,
        formatter_class=_RawFormatter,
    )
    parser.add_argument("--version", action="version", version=f"libxlsr {libxlsr.__version__}")
    # With prog, as argparse would look for it with what takes long to import.
    commands = parser.add_subparsers(
        title="commands",
        metavar="COMMAND",
        required=True,
        prog=parser.prog,
        parser_class=_Parser,
    )
    first = arguments[0] if arguments else None
    modules = [] if first == "--version" else list(_COMMANDS.values())
    for module in [_COMMANDS[first]] if first in _COMMANDS else modules:
        importlib.import_module(module).add_parser(commands)
    return parser
