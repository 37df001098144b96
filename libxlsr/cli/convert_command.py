"""``libxlsr convert``."""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import Any

from libxlsr.cli import interrupts, signals
from libxlsr.cli.arguments import image_source, output_file, seconds
from libxlsr.cli.logs import set_up_logging
from libxlsr.cli.report import ProgressDisplay, Report
from libxlsr.events import Context
from libxlsr.source.path_or_fd import opened
from libxlsr.tools.convert.operation import convert_ao
from libxlsr.tools.convert.packing import CODECS
from libxlsr.tools.indexed import Written


def add_parser(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "convert",
        help="write an image anew: smaller, or in today's format",
        description="Writes an image anew. It must be whole: what a restore would refuse is "
        "refused. What is written restores to the same guest. An image of Xen 4.5 or older "
        "becomes one of today's.",
        epilog="exit codes: 0 it is written; 1 the image is bad; 2 wrong usage; 3 a file could not "
        "be read or written; 4 aborted or timed out",
    )
    parser.add_argument("image", metavar="IMAGE", help="the image; - reads standard input")
    parser.add_argument("output", type=output_file, metavar="OUTPUT", help="the file to make")
    parser.add_argument(
        "--compact",
        action="store_true",
        help="write each frame once, as it was last, and each record of the guest's state once",
    )
    parser.add_argument(
        "-z", "--compress", choices=CODECS, help="compress what is written (default: don't)"
    )
    parser.add_argument(
        "--legacy",
        action="store_true",
        help="it is an image of Xen 4.5 or older, even if its head doesn't show it",
    )
    parser.add_argument(
        "--deadline", type=seconds, metavar="SECONDS", help="give up after so many seconds"
    )
    parser.add_argument("--json", action="store_true", help="JSON objects, one a line")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say more")
    parser.set_defaults(command=convert)


def convert(options: argparse.Namespace, report: Report) -> int:
    """Run the command; raises errors of libxlsr."""
    set_up_logging(options.verbose)
    source = image_source(options.image)
    ctx = Context()
    with opened(source) as fd, ProgressDisplay(report) as display:
        before = None if isinstance(source, int) else os.fstat(fd).st_size
        written = signals.run_abortable(
            ctx,
            lambda: convert_ao(
                ctx,
                fd,
                options.output,
                compact=options.compact,
                codec=options.compress,
                on_progress=display.update,
                deadline=options.deadline,
                to_eof=not isinstance(source, int),
                legacy=options.legacy,
            ),
        )
    with contextlib.suppress(BrokenPipeError, interrupts.Interrupt):  # what was done stays done
        _say(written, before, options, report)
    return 0


def _say(written: Written, before: int | None, options: argparse.Namespace, report: Report) -> None:
    report.event(
        "converted",
        path=written.path,
        size=written.size,
        size_before=before,
        compact=options.compact,
        compression=options.compress,
        seconds=round(written.seconds, 6),
    )
    report.line(f"Wrote {options.output}.")
    was = "" if before is None else f", was {before}"
    report.line(f"  size     {written.size} bytes{was}")
    if options.compact:
        report.line(f"  memory   {written.details['frames']} frames")
    report.line(f"  time     {written.seconds:.2f} s")
