"""What a command imports is most of a short command's time: it imports no more than it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import libxlsr
from libxlsr.testing.builder import StreamBuilder

PROGRAM = """
import sys
from libxlsr.cli.program import program
try:
    sys.exit(program())
finally:
    print(*sys.modules)
"""

NOT_FOR_VERIFY = {
    "_cffi_backend",
    "_hashlib",
    "asyncio",
    "bz2",
    "concurrent",
    "dataclasses",
    "gzip",
    "hashlib",
    "importlib.metadata",
    "importlib.resources",
    "inspect",
    "logging",
    "lzma",
    "multiprocessing",
    "pathlib",
    "rich",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "traceback",
    "transitions",
    "zlib",
    "zstandard",
    "libxlsr.events",
    "libxlsr.helper",
    "libxlsr.restoring.operation",
    "libxlsr.stream.machine",
    "libxlsr.stream.reader_machine",
    "libxlsr.tools.verify.digest",
    "libxlsr.xen",
}


def imported(*arguments: str) -> set[str]:
    """What a process has imported that has run a command. Without site: what is installed may add
    modules of its own to every process."""
    root = str(Path(libxlsr.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM, *arguments],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("guest", ["pv", "pvh", "hvm"])
@pytest.mark.parametrize("options", [[], ["--quiet", "--full"], ["--json"]], ids=str)
def test_what_verify_does_not_import(guest: str, options: list[str], tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(StreamBuilder(guest).build())
    modules = imported("verify", *options, str(image))
    assert "libxlsr.tools.verify.verifier" in modules
    assert not modules & NOT_FOR_VERIFY


def test_the_version_needs_no_command() -> None:
    modules = imported("--version")
    assert "libxlsr.cli.main" in modules
    assert not modules & (NOT_FOR_VERIFY | {"libxlsr.restoring", "libxlsr.tools.verify"})
