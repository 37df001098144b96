"""``libxlsr verify``."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import Any

from libxlsr.cli.arguments import image_source
from libxlsr.cli.report import Report, error_members
from libxlsr.errors import LibxlsrError, UsageError
from libxlsr.tools.verify.findings import where_and_what
from libxlsr.tools.verify.operation import Outcome, verify_many
from libxlsr.tools.verify.verifier import FORMATS, Verified

JOBS_MAX = 256


def add_parser(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "verify",
        help="say whether images are whole and right",
        description="Says whether images are whole and right, and if not, what is wrong where. "
        "Takes what `libxlsr restore` takes. docs/verify.md explains each finding.",
        epilog="exit codes: 0 no errors; 1 errors were found; 2 wrong usage; 3 a file could not "
        "be read; 4 aborted",
    )
    parser.add_argument(
        "images", metavar="FILE", nargs="+", help="the images; - reads standard input"
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="read every byte of a file, and look into page tables; without it, pages are passed "
        "over. Pipes and compressed files are always read whole",
    )
    parser.add_argument(
        "--digest",
        action="store_true",
        help="print a digest of what the guest sees, the same for two images of one state; "
        "implies --full",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="auto",
        help="what kind of image it has to be (default: any); legacy is one of Xen 4.5 or older",
    )
    parser.add_argument(
        "-j", "--jobs", type=_jobs, default=1, metavar="N", help="verify N files at a time"
    )
    parser.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="print nothing of what can be read; the exit code says it",
    )
    parser.add_argument("--json", action="store_true", help="JSON objects, one a line")
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="say what each finding means"
    )
    parser.set_defaults(command=verify)


def verify(options: argparse.Namespace, report: Report) -> int:
    """Run the command; raises errors of libxlsr."""
    if options.images.count("-") > 1:
        raise UsageError("standard input is named more than once")
    codes = [0]
    outcomes = verify_many(
        [image_source(image) for image in options.images],
        jobs=options.jobs,
        full=options.full,
        digest=options.digest,
        expected=options.format,
    )
    with closing(outcomes):
        for image, (_, outcome) in zip(options.images, outcomes):
            codes.append(_say(image, outcome, options, report))
    return 1 if 1 in codes else max(codes)


def _jobs(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= JOBS_MAX):
        raise argparse.ArgumentTypeError(f"{text} is not from 1 to {JOBS_MAX}")
    return int(text)


def _say(image: str, outcome: Outcome, options: argparse.Namespace, report: Report) -> int:
    """Tell what came of an image; the exit code for it."""
    if isinstance(outcome, LibxlsrError):
        if report.json:
            report.event("error", file=image, **error_members(outcome))
        else:
            report.error(outcome)
        return outcome.exit_code
    if not options.quiet:
        _say_events(image, outcome, report)
        explain = options.verbose > 0
        _say_lines(image, outcome, report, explain=explain, digest=options.digest)
    return 0 if outcome.good else 1


def _say_events(image: str, verified: Verified, report: Report) -> None:
    for finding in verified.findings:
        report.event(
            "finding",
            file=image,
            severity=finding.severity.value,
            id=finding.id,
            offset=finding.offset,
            layer=finding.layer,
            record=finding.record,
            number=finding.number,
            message=finding.message,
            meaning=finding.meaning,
        )
    report.event(
        "verified",
        file=image,
        good=verified.good,
        read="full" if verified.full else "structural",
        kind=verified.kind,
        compression=verified.compression,
        errors=verified.errors,
        warnings=verified.warnings,
        notes=verified.notes,
        more=verified.dropped,
        bytes=verified.size,
        guest=verified.guest,
        name=verified.name,
        xen_version=verified.xen_version,
        libxc_version=verified.libxc_version,
        records=verified.records,
        frames=verified.frames,
        sent_again=verified.sent_again,
        checkpoints=verified.checkpoints,
        digest=verified.digest,
    )


def _say_lines(
    image: str, verified: Verified, report: Report, *, explain: bool, digest: bool
) -> None:
    for finding in verified.findings:
        severity = finding.severity.value
        report.line(f"{image}: {severity}: {where_and_what(finding)} [{finding.id}]")
        if explain:
            report.line(f"    {finding.meaning}")
    for finding_id, more in verified.dropped.items():
        report.line(f"{image}: and {more} more [{finding_id}]")
    report.line(f"{image}: {_verdict(verified)}; {_how(verified)}")
    what = _what(verified)
    if what:
        report.line(f"{image}: {what}")
    if verified.digest is not None:
        report.line(f"{image}: digest {verified.digest}")
    elif digest:
        report.line(f"{image}: no digest: {_why_no_digest(verified)}")


def _why_no_digest(verified: Verified) -> str:
    if not verified.good:
        return "there are errors"
    if any(finding.id == "ends-at-checkpoint" for finding in verified.findings):
        return "the image ends at a checkpoint"
    return "not every frame was kept track of"


def _verdict(verified: Verified) -> str:
    counts = [
        f"{number} {name}{'' if number == 1 else 's'}"
        for number, name in (
            (verified.errors, "error"),
            (verified.warnings, "warning"),
            (verified.notes, "note"),
        )
        if number
    ]
    return f"{'good' if verified.good else 'bad'}{', ' + ', '.join(counts) if counts else ''}"


def _how(verified: Verified) -> str:
    if not verified.records:
        return "not looked into"
    if verified.full:
        return f"{'all ' if verified.good else ''}{verified.size} bytes were read"
    return "structure checked, pages not read (--full reads them)"


def _what(verified: Verified) -> str:
    if verified.kind is None or verified.guest is None:
        return ""
    packed = f" ({verified.compression})" if verified.compression else ""
    parts = [f"{verified.kind} image{packed} of a guest of type {verified.guest}"]
    if verified.xen_version is not None and not verified.xen_version.startswith("0."):
        parts.append(f"saved by Xen {verified.xen_version}")
    parts.append(f"libxc version {verified.libxc_version}")
    frames = ", ".join(f"{number} {name}" for name, number in verified.frames.items())
    parts.append(f"{verified.records['libxl']} libxl and {verified.records['libxc']} libxc records")
    parts.append(f"frames: {frames or 'none'}")
    if verified.sent_again:
        parts.append(f"{verified.sent_again} sent again")
    if verified.checkpoints:
        parts.append(f"{verified.checkpoints} checkpoints")
    return "; ".join(parts)
