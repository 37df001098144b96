"""Hosts kept as snapshots of their virtual machines, so that one is up in seconds.

Two for each image, the second made from the first, each made when the cache has none:

``booted``
    dom0 is up and its toolstack ready.
``ready``
    The tree is installed and the guests are saved that tests restore: making them takes minutes.

A snapshot is a directory in the cache (emulator.py says of which files), named by a digest of all
that it depends on. It is made under another name and renamed when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from .emulator import NO_LINK, State, command_line, qemu_version
from .host import BootHung, Host, boot_to_keep, load, load_to_change
from .image import Image, LabError, built_image, cache_directory, locked, remove_unfinished
from .project import TREE_IN_DOM0, install_project
from .recipe import RECIPES

SAVED_GUESTS = ("tiny-pvh", "pv", "pvh", "hvm-tiny", "hvm-bios", "pvh-loop")
"""What in_dom0/save_guests.py saves: those that tests of every run restore."""

BOOT_ATTEMPTS = 3
SAVE_SECONDS = 3600.0
KEPT_OF_A_NAME = 2

HERE = Path(__file__).parent
# What a saved guest depends on, by the names of the files.
_GUEST_RECIPES = ("in_dom0/*guest*.py", "tiny_guest.py")


def boot(xen: str, *, keep_as: str | None = None, link: str = NO_LINK) -> Host:
    """A host that is up, from its snapshot. Raises LabError.

    With `keep_as` it outlives this process and `running_host` finds it by that name; otherwise the
    kernel kills it when the calling thread ends, however it ends.
    """
    return load(built_image(RECIPES[xen]), made_snapshot(xen), keep_as=keep_as, link=link)


def made_snapshot(xen: str) -> State:
    """What `boot` loads, made now if the cache has none."""
    return ready(built_image(RECIPES[xen]))


def is_of_today(host: Host) -> bool:
    """Whether a host was loaded from what `boot` would load."""
    image = built_image(RECIPES[host.xen])
    return host.state.directory.name == _ready_name(image)


def booted(image: Image) -> State:
    """dom0 with its toolstack ready, and nothing done in it."""

    def make(state: State) -> None:
        for attempt in range(1, BOOT_ATTEMPTS + 1):
            state.disk.unlink(missing_ok=True)
            new_disk = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw"]
            _run(*new_disk, "-b", str(image.disk), str(state.disk))
            try:
                host = boot_to_keep(image, state)
            except BootHung as error:
                if attempt == BOOT_ATTEMPTS:
                    raise
                print(f"xenlab: trying again: {error}", file=sys.stderr)
            else:
                host.freeze()
                return

    return _kept(_booted_name(image), make)


def ready(image: Image) -> State:
    """dom0 with the tree of now, or of when it was made, installed, and with saved guests."""

    def make(state: State) -> None:
        base = booted(image)
        # With the image's disk behind it as before, so that it needs no other snapshot.
        for path in base.directory.iterdir():
            _run("cp", "--sparse=always", "--reflink=auto", str(path), str(state.directory))
        host = load_to_change(image, state)
        try:
            install_project(host)
            guests = " ".join(SAVED_GUESTS)
            host.run(
                f"cd {TREE_IN_DOM0} && python -m tests.xenlab.in_dom0.save_guests {guests}",
                timeout=SAVE_SECONDS,
            )
            host.freeze()
        finally:
            host.shut_down()

    return _kept(_ready_name(image), make)


def _booted_name(image: Image) -> str:
    line = command_line(image, State(Path()), 0, keep_changes=True, link=NO_LINK)
    inputs = [image.identity, qemu_version(), line]
    return f"{image.recipe.xen}-booted-{_digest(inputs)}"


def _ready_name(image: Image) -> str:
    paths = sorted(path for pattern in _GUEST_RECIPES for path in HERE.glob(pattern))
    recipes = [(path.name, path.read_text()) for path in paths]
    inputs = [_booted_name(image), SAVED_GUESTS, recipes]
    return f"{image.recipe.xen}-ready-{_digest(inputs)}"


def _digest(inputs: object) -> str:
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:12]


def _kept(name: str, make: Callable[[State], None]) -> State:
    """The snapshot of this name, made now if the cache has none."""
    snapshots = cache_directory() / "snapshots"
    snapshots.mkdir(exist_ok=True)
    directory = snapshots / name
    kind = name.rpartition("-")[0]
    with locked(snapshots / f"{kind}.lock"):
        if not directory.is_dir():
            print(f"xenlab: making the snapshot {name}", file=sys.stderr, flush=True)
            remove_unfinished(snapshots, kind)
            with tempfile.TemporaryDirectory(dir=snapshots, prefix=f".{kind}-") as work:
                made = State(Path(work) / "made")
                made.directory.mkdir()
                make(made)
                made.directory.rename(directory)
        os.utime(directory)
        _remove_older(snapshots, kind)
    return State(directory)


def _remove_older(snapshots: Path, kind: str) -> None:
    """All but those that were used last: two, so that two trees with one cache can take turns."""
    by_use = sorted(snapshots.glob(f"{kind}-*/"), key=lambda path: path.stat().st_mtime)
    for path in by_use[:-KEPT_OF_A_NAME]:
        shutil.rmtree(path)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise LabError(f"{command[0]} failed with {done.returncode}: {done.stderr}")
