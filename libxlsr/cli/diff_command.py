"""``libxlsr diff``."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from libxlsr.cli.arguments import image_source
from libxlsr.cli.report import Report
from libxlsr.errors import UsageError
from libxlsr.libxc.frame_ranges import frame_range
from libxlsr.tools.inspect.difference import Change, Difference, FrameDifferences, is_set_of_names
from libxlsr.tools.inspect.operation import diff as diff_images

RANGES_SHOWN = 8
VALUE_MAX = 80


def add_parser(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "diff",
        help="say what differs between two images of a guest",
        description="Says what differs between two images of a guest: its configuration, its "
        "state by the names of registers, parameters and CPUID's features, its memory by frames. "
        "How an image was written (iterations, checkpoints, compression) makes no difference.",
        epilog="exit codes: 0 the guest's state is the same; 1 it differs, or an image is bad; "
        "2 wrong usage; 3 a file could not be read; 4 aborted",
    )
    parser.add_argument("a", metavar="A", help="an image; - reads standard input")
    parser.add_argument("b", metavar="B", help="another one")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing")
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="show all ranges of frames"
    )
    parser.set_defaults(command=diff)


def diff(options: argparse.Namespace, report: Report) -> int:
    """Run the command; raises errors of libxlsr."""
    if options.a == options.b == "-":
        raise UsageError("standard input is named more than once")
    found = diff_images(image_source(options.a), image_source(options.b))
    if not options.quiet:
        report.event("difference", **_members(found))
        _say(found, report, most=None if options.verbose else RANGES_SHOWN)
    return 0 if found.same_state else 1


def _members(found: Difference) -> dict[str, Any]:
    return {
        "same_state": found.same_state,
        "config": [dataclasses.asdict(change) for change in found.config],
        "state": [dataclasses.asdict(change) for change in found.state],
        "not_decoded": found.not_decoded,
        "device_model": found.device_model,
        "pages": dataclasses.asdict(found.pages),
        "records": found.records,
    }


def _say(found: Difference, report: Report, *, most: int | None) -> None:
    for title, values in (("configuration", found.config), ("state", found.state)):
        if values:
            report.line(f"{title}:")
        for change in values:
            report.line(f"  {_change(change)}")
    for name in found.not_decoded:
        report.line(f"{name}: differs in bytes that are not decoded")
    if found.device_model:
        report.line("device model: its state differs")
    pages = found.pages
    report.line(f"pages: {pages.same} the same")
    for what, frames in (
        ("differ in contents", pages.contents),
        ("differ in type", pages.type),
        ("only in A", pages.only_in_a),
        ("only in B", pages.only_in_b),
    ):
        if frames.frames:
            report.line(f"  {frames.frames} {what}: {_ranges(frames, most)}")
    if found.records:
        report.line("records (no part of the state):")
        for name, (one, other) in found.records.items():
            report.line(f"  {name}: {one} -> {other}")
    report.line(
        "the guest's state is the same" if found.same_state else "the guest's state differs"
    )


def _change(change: Change) -> str:
    one, other = change.a, change.b
    names = is_set_of_names(one) and is_set_of_names(other)
    if names and set(one).isdisjoint(other):  # else these are both lists, in another order
        return f"{change.path}: " + " ".join([f"-{x}" for x in one] + [f"+{x}" for x in other])
    return f"{change.path}: {_value(one)} -> {_value(other)}"


def _value(value: Any) -> str:
    if value is None:
        return "(none)"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= VALUE_MAX else f"{text[:VALUE_MAX]}..."


def _ranges(frames: FrameDifferences, most: int | None) -> str:
    shown = [frame_range(first, number) for first, number in frames.ranges[:most]]
    hidden = frames.frames - sum(number for _, number in frames.ranges[:most])
    return ", ".join(shown) + (f", and {hidden} more" if hidden else "")
