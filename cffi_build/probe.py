"""Asks the installed headers what this Xen version has.

Versions are not compared: distributions backport, so a declaration is there when code that uses
it compiles, and not otherwise.
"""

from __future__ import annotations

import os
import shlex
import subprocess

PKG_CONFIG_NAMES = ("xencontrol", "xenguest", "xenstore", "xentoollog")
XENLIGHT = "xenlight"


def pkg_config(*arguments: str) -> list[str]:
    """What pkg-config prints, as words; ``subprocess.CalledProcessError`` where it fails."""
    done = subprocess.run(["pkg-config", *arguments], check=True, capture_output=True, text=True)
    return shlex.split(done.stdout)


def xen_version() -> str:
    """The version of the installed headers, such as "4.17.0".

    ``__XEN_LATEST_INTERFACE_VERSION__`` is not it: that number moves on its own.
    """
    return pkg_config("--modversion", "xencontrol")[0]


def compiles(source: str) -> bool:
    """Whether ``source`` compiles against the installed headers."""
    command = [
        *shlex.split(os.environ.get("CC", "cc")),
        *pkg_config("--cflags", *PKG_CONFIG_NAMES),
        "-fsyntax-only",
        "-Werror",
        "-x",
        "c",
        "-",
    ]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    return done.returncode == 0
