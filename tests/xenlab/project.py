"""Carries the project's tree into dom0 and installs it there, compiled modules included."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.paths import ROOT

from .host import Host
from .image import Image, LabError, cache_directory, locked
from .recipe import VENV

TREE_IN_DOM0 = "/root/libxlsr"
_FILES = "/root/libxlsr.files"
"""What of the tree is in dom0: a JSON object, each file's name to its content's digest."""
_BUILD_STAMP = "/root/libxlsr.build"
_BUILD_SECONDS = 1200.0

# What decides whether pip has to run again.
_BUILD_INPUTS = ("setup.cfg", "setup.py", "pyproject.toml", "cffi_build/")

# The archive holds the files that are new, the list of those that have gone, and _FILES.
_ARCHIVE = "/root/libxlsr.tar"
_GONE = "/root/libxlsr.gone"
_UPDATE_TREE = f"""\
set -eu
mkdir -p {TREE_IN_DOM0}
rm -f {_FILES}
tar -xf {_ARCHIVE} -C / {_GONE[1:]}
cd {TREE_IN_DOM0}
xargs -0 -r rm -f <{_GONE}
tar -xf {_ARCHIVE} -C /
rm {_ARCHIVE}
"""
# editable_mode=compat: a path entry, as fast to start from as an installed package. The import hook
# that is the default takes longer under emulation than Python's own start.
_BUILT = "/root/libxlsr.built.tar"
_BUILD = f"""\
set -eu
cd {TREE_IN_DOM0}
find . -name '*.so' -delete
pip install --quiet --no-index --no-deps --no-build-isolation \\
    --config-settings editable_mode=compat --editable .
cd /
{{ find {TREE_IN_DOM0[1:]} -name '*.so' -o -path '*.egg-info/*'
  find {VENV[1:]} -path '*libxlsr*'; }} | tar -cf {_BUILT} --no-recursion -T -
"""
_UNPACK_BUILT = f"""\
set -eu
cd {TREE_IN_DOM0}
rm -f {_BUILD_STAMP}
find . -name '*.so' -delete
tar -xf {_BUILT} -C /
"""


def install_project(host: Host) -> None:
    """Make this tree's `libxlsr` the one in dom0; only what is not yet there is carried in.

    The tree is in TREE_IN_DOM0 afterwards, with tests and examples, and installed from there in
    editable mode; the `libxlsr` command is in PATH. What has been built for an image once is kept
    in the cache. Raises CommandFailed when it doesn't build.
    """
    known = host.run(f"cat {_FILES} || echo {{}}; echo; cat {_BUILD_STAMP}", check=False).stdout
    listed, _, build_there = known.partition("\n")
    _carry_in(host, _tree_files(), json.loads(listed))
    build = _digest(name for name in _tree_names() if name.startswith(_BUILD_INPUTS))
    if build_there.strip() != build:
        _install(host, build)
        host.run(f"echo {build} >{_BUILD_STAMP}")


def _carry_in(host: Host, files: dict[str, str], there: dict[str, str]) -> None:
    if files == there:
        return
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, digest in files.items():
            if there.get(name) != digest:
                tar.add(ROOT / name, arcname=_inside(name), filter=_owned_by_root)
        _add(tar, _GONE, "".join(f"{name}\0" for name in there.keys() - files.keys()))
        # At the end, so that it is there only when all else is.
        _add(tar, _FILES, json.dumps(files))
    host.put_bytes(archive.getvalue(), _ARCHIVE)
    host.run(_UPDATE_TREE)


def _install(host: Host, build: str) -> None:
    """Take what was built of the same files for the same image, or build it."""
    builds = cache_directory() / "builds"
    builds.mkdir(exist_ok=True)
    kept = builds / f"{host.image.directory.name}-{build[:12]}.tar"
    with locked(builds / "lock"):
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=builds) as work:
                built = Path(work) / "built.tar"
                if os.geteuid() == 0:
                    _build_here(host.image, built)
                else:
                    host.run(_BUILD, timeout=_BUILD_SECONDS)
                    host.get(_BUILT, built)
                built.rename(kept)
    host.put(kept, _BUILT)
    host.run(_UNPACK_BUILT)


def _build_here(image: Image, built: Path) -> None:
    """Build in the image's root tree: a matter of seconds, and under emulation of minutes."""
    root = image.build_root
    tree = root / TREE_IN_DOM0[1:]
    shutil.rmtree(tree, ignore_errors=True)
    for name in _tree_names():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    environment = {"PATH": f"{VENV}/bin:/usr/bin:/usr/sbin", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        ["chroot", root, "sh", "-c", _BUILD],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise LabError(f"the tree does not build:\n{done.stdout[-4000:]}")
    shutil.move(root / _BUILT[1:], built)


def _tree_names() -> list[str]:
    """The files that git knows of or doesn't ignore, as far as they are there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    names = set(listed.stdout.decode().split("\0"))
    return sorted(name for name in names if (ROOT / name).is_file())


def _tree_files() -> dict[str, str]:
    return {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in _tree_names()}


def _digest(names: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        content = hashlib.sha256((ROOT / name).read_bytes()).hexdigest()
        digest.update(f"{content} {name}\n".encode())
    return digest.hexdigest()


def _inside(name: str) -> str:
    return f"{TREE_IN_DOM0[1:]}/{name}"


def _add(tar: tarfile.TarFile, path: str, text: str) -> None:
    member = tarfile.TarInfo(path[1:])
    data = text.encode()
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
