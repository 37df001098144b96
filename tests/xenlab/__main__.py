"""The lab from a shell: ``python -m tests.xenlab up|shell|run|check|load|install|status|…``."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.paths import ROOT

from .check import GUESTS, changed_files, concerned
from .host import Host, running_host
from .image import LabError, missing_packages
from .pair import NAMES, boot_pair, running_pair
from .project import install_project
from .recipe import RECIPES
from .snapshot import boot, is_of_today, made_snapshot


def _the_host(arguments: argparse.Namespace) -> Host:
    name = arguments.host or arguments.xen
    host = running_host(name)
    if host is None:
        raise LabError(f"the lab {name} is not up; python -m tests.xenlab up")
    return host


def _running_hosts(arguments: argparse.Namespace) -> Iterator[tuple[str, Host]]:
    names = [arguments.host] if arguments.host else [*RECIPES, *NAMES]
    for name in names:
        host = running_host(name)
        if host is not None:
            yield name, host


def _packages(_arguments: argparse.Namespace) -> int:
    print(*missing_packages(), sep="\n")
    return 0


def _build(arguments: argparse.Namespace) -> int:
    print(made_snapshot(arguments.xen).directory)
    return 0


def _up(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    if arguments.pair:
        if running_pair() is None:
            boot_pair(arguments.xen, arguments.second_xen, keep=True)
    elif running_host(arguments.xen) is None:
        boot(arguments.xen, keep_as=arguments.xen)
    print(f"up after {time.monotonic() - started:.0f} s")
    return _status(arguments)


def _status(arguments: argparse.Namespace) -> int:
    code = 1
    for name, host in _running_hosts(arguments):
        old = "" if is_of_today(host) else ", older than the tree"
        print(f"{name}: up, Xen {host.xen}, process {host.pid}")
        print(f"  loaded from  {host.state.directory.name}{old}")
        print(f"  console      {host.console}")
        print(f"  ssh          cd {host.run_dir} && {' '.join(host.ssh_command())}")
        code = 0
    if code:
        print("no lab is up")
    return code


def _shell(arguments: argparse.Namespace) -> int:
    if not arguments.host and running_host(arguments.xen) is None:
        boot(arguments.xen, keep_as=arguments.xen)
    return _the_host(arguments).shell()


def _run(arguments: argparse.Namespace) -> int:
    return _the_host(arguments).run_attached(" ".join(arguments.command))


def _check(arguments: argparse.Namespace) -> int:
    files = [_in_tree(file) for file in arguments.file] or changed_files()
    tests = concerned(files)
    words = [f"({GUESTS[arguments.guest]})"] if arguments.guest else []
    words += [f"({arguments.k})"] if arguments.k else []
    if not tests and (arguments.file or not words):
        print("no test in dom0 concerns " + (", ".join(files) or "what has changed: nothing"))
        return 0
    host = running_host(arguments.xen)
    if host is not None and not is_of_today(host):
        host.shut_down()
        host = None
    if host is None:
        boot(arguments.xen, keep_as=arguments.xen)
    command = [sys.executable, "-m", "pytest", "-q", "--xen", arguments.xen]
    command += ["-k", " and ".join(words)] if words else []
    return subprocess.run([*command, *(tests or [_ALL])], cwd=ROOT).returncode


_ALL = "tests/xenlab/in_dom0"


def _in_tree(file: str) -> str:
    try:
        return str(Path(file).resolve().relative_to(ROOT))
    except ValueError:
        raise LabError(f"{file} is not in the tree") from None


def _load(arguments: argparse.Namespace) -> int:
    _the_host(arguments).load_again()
    return 0


def _install(arguments: argparse.Namespace) -> int:
    install_project(_the_host(arguments))
    return 0


def _console(arguments: argparse.Namespace) -> int:
    print(_the_host(arguments).console.read_text(errors="replace"))
    return 0


def _down(arguments: argparse.Namespace) -> int:
    for _, host in _running_hosts(arguments):
        host.shut_down()
    return 0


_COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], str]] = {
    "packages": (_packages, "the Debian packages that the lab needs and that are not here"),
    "build": (_build, "make the image and the snapshot if the cache has none"),
    "up": (_up, "start a lab that stays up"),
    "shell": (_shell, "a shell in dom0; starts a lab that stays up if none is"),
    "run": (_run, "run a command in dom0; its exit code is this one's"),
    "check": (
        _check,
        "run the tests that concern what has changed, or a kind of guest",
    ),
    "load": (_load, "put the lab back to how it was when it was started"),
    "install": (_install, "carry the tree into dom0 and install it there"),
    "status": (_status, "which labs are up, and how to reach them"),
    "console": (_console, "what Xen and dom0 wrote on the console"),
    "down": (_down, "stop the labs that are up; everything in them is lost"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.xenlab", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (function, text) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name == "run":
            command.add_argument("command", nargs="+", help="the words of a shell command")
        if name == "up":
            command.add_argument("--pair", action="store_true", help="two hosts with a link")
            command.add_argument("--second-xen", choices=sorted(RECIPES), help="the second's Xen")
        if name == "check":
            command.add_argument("file", nargs="*", help="instead of what git says has changed")
            command.add_argument("-k", metavar="EXPRESSION", help="only those; as pytest takes it")
            command.add_argument("--guest", choices=sorted(GUESTS), help="only with such a guest")
        command.add_argument("--xen", choices=sorted(RECIPES), default="4.17", help="Xen's release")
        command.add_argument("--host", choices=[*RECIPES, *NAMES], help="a lab by its name")
        command.set_defaults(function=function)
    arguments = parser.parse_args()
    try:
        code: int = arguments.function(arguments)
    except LabError as error:
        print(f"xenlab: {error}", file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
