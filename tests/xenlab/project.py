"""Carries the project's tree into dom0 and installs it there, compiled module included."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

from .host import Host
from .recipe import SHARE_IN_DOM0

TREE = Path(__file__).resolve().parents[2]
TREE_IN_DOM0 = "/root/libxlsr"
_TREE_STAMP = "/root/libxlsr.tree"
_BUILD_STAMP = "/root/libxlsr.build"
_BUILD_SECONDS = 600.0

# What decides whether pip has to run again: it takes a minute under emulation.
_BUILD_INPUTS = ("setup.cfg", "setup.py", "pyproject.toml", "cffi_build/")

_REPLACE_TREE = f"""\
set -eu
rm -f {_TREE_STAMP}
mkdir -p {TREE_IN_DOM0}
cd {TREE_IN_DOM0}
find . -type f ! -name '*.so' ! -path './build/*' ! -path './*.egg-info/*' -delete
tar -xf {SHARE_IN_DOM0}/tree.tar
"""
# editable_mode=compat: a path entry, as fast to start from as an installed package. The import hook
# that is the default takes longer under emulation than Python's own start.
_BUILD = f"""\
set -eu
rm -f {_BUILD_STAMP}
cd {TREE_IN_DOM0}
find . -name '*.so' -delete
pip install --quiet --no-index --no-deps --no-build-isolation \\
    --config-settings editable_mode=compat --editable .
"""


def install_project(host: Host) -> None:
    """Make this tree's `libxlsr` the one in dom0; nothing is done when it is already.

    The tree is in TREE_IN_DOM0 afterwards, with tests and examples, and installed from there in
    editable mode; the `libxlsr` command is in PATH. Raises CommandFailed when it doesn't build.
    """
    names = _tree_names()
    tree, build = _digest(names), _digest(n for n in names if n.startswith(_BUILD_INPUTS))
    installed = host.run(f"cat {_TREE_STAMP} {_BUILD_STAMP}", check=False).stdout
    if installed == tree + build:
        return
    (host.share / "tree.tar").write_bytes(_archive(names))
    host.run(_REPLACE_TREE)
    if not installed.endswith(build):
        host.run(_BUILD, timeout=_BUILD_SECONDS)
        host.run(f"printf {build} >{_BUILD_STAMP}")
    host.run(f"printf {tree} >{_TREE_STAMP}")


def _tree_names() -> list[str]:
    """The files that git knows of or doesn't ignore, as far as they are there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TREE,
        check=True,
        stdout=subprocess.PIPE,
    )
    names = set(listed.stdout.decode().split("\0"))
    return sorted(name for name in names if (TREE / name).is_file())


def _digest(names: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        content = hashlib.sha256((TREE / name).read_bytes()).hexdigest()
        digest.update(f"{content} {name}\n".encode())
    return digest.hexdigest()


def _archive(names: Iterable[str]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in names:
            tar.add(TREE / name, arcname=name, filter=_owned_by_root)
    return archive.getvalue()


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
