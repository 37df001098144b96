"""Which tests in dom0 concern a file: for a developer's loop, so the few that show it at once.

All of them run in CI; what stands here only decides what is worth waiting for after a change.
"""

from __future__ import annotations

import fnmatch
import subprocess
from collections.abc import Iterable, Sequence

from tests.paths import ROOT

IN_DOM0 = "tests/xenlab/in_dom0"
_GOES_ON = "test_restore.py::test_the_guest_goes_on"
_HVM = "test_hvm.py::test_the_image_in_the_tree"

# The first pattern that a file's path matches decides; names are below IN_DOM0.
CONCERNED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("cffi_build/*", ("test_bindings.py",)),
    ("libxlsr/xen/*", ("test_bindings.py", _GOES_ON)),
    ("libxlsr/domain/devices/*", ("test_devices.py", "test_devices_undone.py")),
    ("libxlsr/domain/device_model/*", ("test_device_model.py", _HVM)),
    ("libxlsr/domain/save_helper/*", ("test_undone.py", _GOES_ON)),
    ("libxlsr/domain/*", ("test_like_xl.py", "test_undone.py", _GOES_ON)),
    ("libxlsr/restoring/*", ("test_restore.py", "test_undone.py")),
    ("libxlsr/cli/*", ("test_command.py",)),
    ("libxlsr/formats/*", ("test_damaged.py", _GOES_ON, _HVM)),
    ("libxlsr/guest_state/*", ("test_damaged.py", _GOES_ON, _HVM)),
    ("libxlsr/libxc/*", ("test_damaged.py", _GOES_ON, _HVM)),
    ("libxlsr/source/*", ("test_damaged.py", _GOES_ON, _HVM)),
    ("libxlsr/stream/*", ("test_damaged.py", _GOES_ON, _HVM)),
    ("libxlsr/tools/*", ()),
    ("libxlsr/testing/*", ()),
    ("libxlsr/*.py", (_GOES_ON, _HVM)),
)

# What -k takes for each kind of guest: "pv" is in "pvh".
GUESTS = {"pv": "pv and not pvh", "pvh": "pvh", "hvm": "hvm or bios or tiny"}


def changed_files() -> list[str]:
    """What differs from the last commit, and what git doesn't know yet."""
    changed: list[str] = []
    for command in (
        ["git", "diff", "--name-only", "-z", "HEAD"],
        ["git", "ls-files", "--others", "--exclude-standard", "-z"],
    ):
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        changed += [name for name in listed.stdout.split("\0") if name]
    return changed


def concerned(files: Iterable[str]) -> list[str]:
    """The tests to run for these files (paths in the tree), as pytest takes them."""
    tests: dict[str, None] = {}
    for file in files:
        tests.update(dict.fromkeys(_concerned(file)))
    # A module says all of its tests.
    return [test for test in tests if "::" not in test or test.partition("::")[0] not in tests]


def _concerned(file: str) -> Sequence[str]:
    if fnmatch.fnmatch(file, f"{IN_DOM0}/test_*.py"):
        return (file,)
    for pattern, tests in CONCERNED:
        if fnmatch.fnmatch(file, pattern):
            return [f"{IN_DOM0}/{test}" for test in tests]
    return ()
