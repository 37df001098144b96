"""``libxlsr restore``."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from libxlsr.cli import interrupts, signals
from libxlsr.cli.arguments import image_source, seconds
from libxlsr.cli.logs import set_up_logging
from libxlsr.cli.report import ProgressDisplay, Report
from libxlsr.domain.config.overrides import parse_override, parse_override_file
from libxlsr.errors import BackendUnavailable, StreamError, TargetError, UsageError
from libxlsr.events import Context
from libxlsr.formats import xl
from libxlsr.restoring.choose import Choice, choose
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import RestoreResult
from libxlsr.restoring.timeouts import Timeouts
from libxlsr.source.path_or_fd import opened
from libxlsr.stream.reader_machine import State

logger = logging.getLogger(__name__)

_WAITS = tuple(field.name for field in dataclasses.fields(Timeouts))


def add_parser(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "restore",
        help="bring a guest back to life, as a domain or offline into files",
        description="Brings a guest back to life: on a Xen host as a domain, elsewhere offline, "
        "as files. Takes what `xl save` wrote, a bare libxl or libxc stream, also compressed with "
        "gzip, xz or zstd.",
        epilog="exit codes: 0 the guest is restored; 1 the image is bad; 2 wrong usage; 3 the "
        "machine can't; 4 aborted or timed out",
    )
    parser.add_argument("image", metavar="FILE", help="the image; - reads standard input")
    parser.add_argument(
        "--target",
        choices=("auto", "xen", "image"),
        default="auto",
        help="where to: a domain, files, or what this machine can do (default: auto)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="offline: the directory to make (default: FILE's name, with .guest)",
    )
    parser.add_argument(
        "-p", "--paused", action="store_true", help="on Xen: leave the domain paused"
    )
    parser.add_argument(
        "-c",
        "--console",
        action="store_true",
        help="on Xen: become `xl console` of the domain once it is restored",
    )
    parser.add_argument(
        "-e",
        dest="no_monitor",
        action="store_true",
        help="as in xl restore; libxlsr leaves nothing in the background either way",
    )
    parser.add_argument(
        "-F",
        dest="foreground",
        action="store_true",
        help="as in xl restore; refused, as libxlsr does not wait for the domain's end",
    )
    parser.add_argument("--name", help="on Xen: the domain's name, instead of the image's")
    parser.add_argument(
        "--config-override",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="on Xen: change the image's configuration; may be given many times",
    )
    parser.add_argument(
        "--config-overrides",
        type=Path,
        metavar="FILE",
        help="on Xen: a file with such KEY=VALUE lines",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="libxl's JSON of the domain, for an image that has none",
    )
    parser.add_argument(
        "--legacy",
        action="store_true",
        help="it is an image of Xen 4.5 or older, even if its head doesn't show it",
    )
    parser.add_argument(
        "--balloon",
        action="store_true",
        help="on Xen: let dom0 give up memory if it is short (one restore at a time)",
    )
    parser.add_argument(
        "--deadline", type=seconds, metavar="SECONDS", help="give up after so many seconds"
    )
    parser.add_argument(
        "--timeout",
        type=_timeout,
        action="append",
        default=[],
        metavar="WAIT=SECONDS",
        help="for one wait: silence (of the sender), helper, device-model or hotplug; "
        "SECONDS may be none; may be given many times",
    )
    parser.add_argument("--json", action="store_true", help="JSON objects, one a line")
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="say more; twice: each transition"
    )
    parser.set_defaults(command=restore)


def restore(options: argparse.Namespace, report: Report) -> int:
    """Run the command; raises errors of libxlsr."""
    set_up_logging(options.verbose)
    choice = choose(options.target)
    if options.foreground:
        raise UsageError(
            "-F: libxlsr does not wait for the end of the domain",
            remedy="xl restore does (docs/decisions/no-monitor.md)",
        )
    console = _console_program(options, choice) if options.console else None
    source = image_source(options.image)
    ctx = Context()
    wanted = RestoreOptions(
        target=choice.target,
        output=_output(options, choice),
        config=None if options.config is None else _config(options.config),
        overrides=_overrides(options),
        paused=options.paused,
        balloon=options.balloon,
        legacy=options.legacy,
        to_eof=not isinstance(source, int),
        deadline=options.deadline,
        timeouts=Timeouts(**dict(options.timeout)),
        trace=_log_transition if options.verbose > 1 else None,
    )
    with opened(source) as fd, ProgressDisplay(report) as display:
        result = signals.run_abortable(
            ctx, lambda: restore_ao(ctx, fd, wanted, on_progress=display.update)
        )
    with contextlib.suppress(BrokenPipeError, interrupts.Interrupt):  # what was done stays done
        _say(result, choice, report)
        sys.stdout.flush()
    if console is not None:
        sys.stderr.flush()
        interrupts.stop_tick()
        os.execv(console, [console, "console", str(result.guest.domid)])
    return 0


def _console_program(options: argparse.Namespace, choice: Choice) -> str:
    """The path of xl. Raises UsageError or BackendUnavailable where there can't be a console."""
    if choice.target != "xen":
        raise UsageError(f"-c: an offline restore has no console ({choice.reason})")
    if options.json:
        raise UsageError("-c: a console is no JSON", remedy="leave -c or --json out")
    if options.image == "-":
        raise UsageError("-c: standard input can't be both the image and the console's keyboard")
    program = shutil.which("xl")
    if program is None:
        raise BackendUnavailable("-c: xl is not installed", remedy="install Xen's tools")
    return program


def _log_transition(trigger: str, source: State, dest: State) -> None:
    logger.debug("%s --%s--> %s", source.name, trigger, dest.name)


def _output(options: argparse.Namespace, choice: Choice) -> Path | None:
    output: Path | None = options.output
    if output == Path("-"):
        raise UsageError("--output -: a guest is restored into a directory, not into a pipe")
    if output is None and choice.target == "image":
        stem = "restored" if options.image == "-" else Path(options.image).name.split(".")[0]
        return Path(f"{stem or 'restored'}.guest")
    return output


def _overrides(options: argparse.Namespace) -> list[tuple[str, str]]:
    overrides = [parse_override(text) for text in options.config_override]
    if options.config_overrides is not None:
        overrides = parse_override_file(_text(options.config_overrides)) + overrides
    if options.name is not None:
        overrides.append(("name", options.name))
    return overrides


def _timeout(text: str) -> tuple[str, float | None]:
    """``WAIT=SECONDS`` as a field of `Timeouts` and its value; ``WAIT=none`` is for ever."""
    wait, equals, value = text.partition("=")
    name = wait.replace("-", "_")
    if not equals or name not in _WAITS:
        raise argparse.ArgumentTypeError(
            f"{text} is no WAIT=SECONDS; WAIT is {', '.join(_WAITS).replace('_', '-')}"
        )
    return name, None if value == "none" else seconds(value)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        raise TargetError(f"can't read {path}", errno=number) from error


def _config(path: Path) -> xl.Config:
    try:
        return xl.Config.decode(_text(path).encode() + b"\0")
    except StreamError as error:
        raise UsageError(f"{path} is no domain configuration: {error.message}") from error


def _say(result: RestoreResult, choice: Choice, report: Report) -> None:
    guest = result.guest
    report.event(
        "restored",
        why=choice.reason,
        guest=dataclasses.asdict(guest),
        image={"kind": result.image_kind, "compression": result.compression},
        stream_bytes=result.stream_bytes,
        libxl_records=result.libxl_records,
        checkpoints=result.checkpoints,
        failover=None if result.failover is None else str(result.failover),
        seconds=round(result.seconds, 6),
        phases={phase.value: round(spent, 6) for phase, spent in result.phases.items()},
    )
    where = f"offline into {os.path.relpath(guest.where)}" if guest.domid is None else guest.where
    report.line(f"Restored {where} ({choice.reason}).")
    report.line(f"  name     {guest.name if guest.name is not None else '(none in the image)'}")
    whose = "saved by" if guest.domid is None else "on"
    xen = f", {whose} Xen {guest.xen_version}" if guest.xen_version else ""
    report.line(f"  type     {guest.domain_type}{xen}")
    if guest.memory_kib is not None:
        vcpus = f"{guest.vcpus} vCPU{'' if guest.vcpus == 1 else 's'}"
        report.line(f"  memory   {guest.memory_kib} KiB, {vcpus}")
    if guest.pages:
        pages = ", ".join(f"{number} {kind}" for kind, number in guest.pages.items())
        report.line(f"  pages    {pages}")
    libxc = f"{sum(guest.records.values())} libxc, " if guest.records else ""
    report.line(f"  records  {libxc}{result.libxl_records} libxl")
    packed = f", {result.compression}" if result.compression else ""
    size = ""
    if result.stream_bytes is not None and result.seconds > 0:
        rate = result.stream_bytes / result.seconds / 1e6
        size = f", {result.stream_bytes} bytes, {rate:.1f} MB/s"
    report.line(f"  image    {result.image_kind}{packed}{size}, {result.seconds:.2f} s")
    if result.failover is not None:
        report.line(
            f"  note     the stream broke off ({result.failover}); the guest is as of its "
            f"checkpoint {result.checkpoints}"
        )
    for note in guest.notes:
        report.line(f"  note     {note}")
