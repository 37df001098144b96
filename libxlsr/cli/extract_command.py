"""``libxlsr extract``."""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import Any

from libxlsr.cli import interrupts, signals
from libxlsr.cli.arguments import address_range, image_source, number, output_file, seconds
from libxlsr.cli.logs import set_up_logging
from libxlsr.cli.report import ProgressDisplay, Report
from libxlsr.events import Context
from libxlsr.source.path_or_fd import opened
from libxlsr.tools.extract.operation import extract_ao
from libxlsr.tools.extract.request import FORMATS, LAST_ADDRESS, Request
from libxlsr.tools.indexed import Written


def add_parser(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "extract",
        help="write a guest's memory for debuggers and forensic tools",
        description="Writes the memory in an image as a raw file, an ELF core (gdb, drgn, crash), "
        "what `xl dump-core` writes, or for LiME's readers (volatility).",
        epilog="exit codes: 0 it is written; 1 the image is bad; 2 wrong usage, or the image has "
        "nothing of what was asked for; 3 a file could not be read or written; 4 aborted or timed "
        "out",
    )
    parser.add_argument(
        "image",
        metavar="IMAGE",
        help="the image, or the directory of an offline restore; - reads standard input",
    )
    parser.add_argument("output", type=output_file, metavar="OUTPUT", help="the file to make")
    parser.add_argument(
        "-f", "--format", choices=FORMATS, default="raw", help="what to write (default: raw)"
    )
    parser.add_argument(
        "--frames",
        type=address_range,
        metavar="RANGE",
        help="only these guest frames: FIRST-LAST or FIRST+COUNT",
    )
    parser.add_argument(
        "--vaddr",
        type=_virtual_range,
        metavar="RANGE",
        help="only these virtual addresses, through the guest's page tables: FIRST-LAST, "
        "FIRST+SIZE, or all (raw and elf)",
    )
    parser.add_argument(
        "--cr3",
        type=number,
        metavar="CR3",
        help="the page tables for --vaddr (default: those of the first vCPU)",
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
    parser.set_defaults(command=extract)


def extract(options: argparse.Namespace, report: Report) -> int:
    """Run the command; raises errors of libxlsr."""
    set_up_logging(options.verbose)
    request = Request(options.format, options.frames, options.vaddr, options.cr3)
    if options.image != "-" and os.path.isdir(options.image):
        written = _run(Path(options.image), False, options, request, report)
    else:
        source = image_source(options.image)
        with opened(source) as fd:
            written = _run(fd, not isinstance(source, int), options, request, report)
    with contextlib.suppress(BrokenPipeError, interrupts.Interrupt):  # what was done stays done
        _say(written, options, report)
    return 0


def _run(
    source: int | Path, to_eof: bool, options: argparse.Namespace, request: Request, report: Report
) -> Written:
    ctx = Context()
    with ProgressDisplay(report) as display:
        return signals.run_abortable(
            ctx,
            lambda: extract_ao(
                ctx,
                source,
                options.output,
                request,
                on_progress=display.update,
                deadline=options.deadline,
                to_eof=to_eof,
                legacy=options.legacy,
            ),
        )


def _virtual_range(text: str) -> tuple[int, int]:
    return (0, LAST_ADDRESS) if text == "all" else address_range(text)


def _say(written: Written, options: argparse.Namespace, report: Report) -> None:
    copied = written.details["copied"]
    report.event(
        "extracted",
        path=written.path,
        format=options.format,
        size=written.size,
        copied=copied,
        seconds=round(written.seconds, 6),
    )
    rate = f", {copied / written.seconds / 1e6:.1f} MB/s" if written.seconds > 0 else ""
    report.line(f"Extracted {options.output} ({options.format}).")
    report.line(f"  size     {written.size} bytes, of which {copied} of the guest's memory")
    report.line(f"  time     {written.seconds:.2f} s{rate}")
