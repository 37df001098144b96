"""The lab from a shell: ``python -m tests.xenlab up|shell|run|install|status|console|down``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from .host import Host, boot, running_host
from .image import LabError, built_image
from .project import install_project
from .recipe import RECIPES


def _the_host(xen: str) -> Host:
    host = running_host(xen)
    if host is None:
        raise LabError(f"no lab with Xen {xen} is up; python -m tests.xenlab up --xen {xen}")
    return host


def _build(arguments: argparse.Namespace) -> int:
    print(built_image(RECIPES[arguments.xen]).directory)
    return 0


def _up(arguments: argparse.Namespace) -> int:
    host = running_host(arguments.xen)
    if host is None:
        built_image(RECIPES[arguments.xen])
        started = time.monotonic()
        host = boot(arguments.xen, keep=True)
        print(f"Xen {arguments.xen} is up after {time.monotonic() - started:.0f} s")
    return _status(arguments)


def _status(arguments: argparse.Namespace) -> int:
    host = running_host(arguments.xen)
    if host is None:
        print(f"Xen {arguments.xen}: down")
        return 1
    old = "" if host.image_digest == RECIPES[arguments.xen].digest else ", of an older recipe"
    print(f"Xen {arguments.xen}: up, image {host.image_digest}{old}, process {host.pid}")
    print(f"  console {host.console}")
    print(f"  files   {host.share} is /mnt/share in dom0")
    print(f"  ssh     cd {host.run_dir} && {' '.join(host.ssh_command())}")
    return 0


def _shell(arguments: argparse.Namespace) -> int:
    if running_host(arguments.xen) is None:
        boot(arguments.xen, keep=True)
    return _the_host(arguments.xen).shell()


def _run(arguments: argparse.Namespace) -> int:
    return _the_host(arguments.xen).run_attached(" ".join(arguments.command))


def _install(arguments: argparse.Namespace) -> int:
    install_project(_the_host(arguments.xen))
    return 0


def _console(arguments: argparse.Namespace) -> int:
    print(_the_host(arguments.xen).console.read_text(errors="replace"))
    return 0


def _down(arguments: argparse.Namespace) -> int:
    host = running_host(arguments.xen)
    if host is not None:
        host.shut_down()
    return 0


_COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], str]] = {
    "build": (_build, "build the image if the cache has none"),
    "up": (_up, "boot a lab that stays up"),
    "shell": (_shell, "a shell in dom0; boots a lab that stays up if none is"),
    "run": (_run, "run a command in dom0; its exit code is this one's"),
    "install": (_install, "carry the tree into dom0 and install it there"),
    "status": (_status, "whether a lab is up, and how to reach it"),
    "console": (_console, "what Xen and dom0 wrote on the console"),
    "down": (_down, "stop the lab; everything in it is lost"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.xenlab", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (function, text) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name == "run":
            command.add_argument("command", nargs="+", help="the words of a shell command")
        command.add_argument("--xen", choices=sorted(RECIPES), default="4.17", help="Xen's release")
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
