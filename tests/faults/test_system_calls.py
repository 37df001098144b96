"""One system call of an offline restore fails, each in its turn: a clean failure, or success.

strace injects the error, into the restoring process or into its helper. Which calls there are is
read from a run without faults. Clean means: exit code 0, 3 or 4 (never 1: nothing is wrong with the
stream), no traceback, the output complete or absent, no process, fd or file left behind.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import libxlsr
from libxlsr.testing.builder import StreamBuilder

from .driver import BEGIN, END

pytestmark = pytest.mark.slow

DRIVER = Path(__file__).parent / "driver.py"
PATIENCE = 120
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

FAULTS: dict[str, tuple[str, ...]] = {
    "read": ("EIO", "EINTR", "EAGAIN"),
    "write": ("ENOSPC", "EIO", "EINTR"),
    "openat": ("EMFILE", "ENOMEM", "EINTR"),
    "mkdir": ("ENOSPC", "EIO"),
    "rename": ("ENOSPC", "EIO"),
    "fsync": ("EIO", "ENOSPC"),
    "lseek": ("EIO",),
    "fcntl": ("EMFILE",),
    "pipe2": ("EMFILE",),
    "socketpair": ("EMFILE",),
    "vfork": ("EAGAIN", "ENOMEM"),
    "pidfd_open": ("EMFILE", "ENOMEM"),
    "waitid": ("EINTR",),
    "sendto": ("EAGAIN", "ENOMEM", "EINTR"),
    "recvfrom": ("EAGAIN", "ENOMEM", "EINTR"),
    "pselect6": ("EINTR", "ENOMEM"),
    "getdents64": ("EIO",),
}
HELPER_FAULTS: dict[str, tuple[str, ...]] = {
    "read": ("EIO", "EINTR"),
    "readv": ("EIO", "EINTR", "EAGAIN"),
    "pwrite64": ("ENOSPC", "EIO", "EINTR"),
    "write": ("ENOSPC", "EIO"),
    "openat": ("EMFILE", "ENOMEM", "ENOSPC"),
    "fsync": ("EIO", "ENOSPC"),
    "mkdir": ("ENOSPC",),
    "lseek": ("EIO",),
    "ftruncate": ("EIO",),
    "sendto": ("EAGAIN", "ENOMEM"),
    "recvfrom": ("EINTR", "ENOMEM"),
    "clone3": ("EAGAIN",),
    "mmap": ("ENOMEM",),
}
# subprocess reads from the child that it made whether exec() worked. A pipe that is read with a
# blocking read() gives no error, and Popen would forget the child.
# The import of a module; one of many such calls is enough.
_IMPORTS = re.compile(
    r"\.pyc?[\">]|\.so[\d.]*[\">]|/(lib|lib64|site-packages|python3[\d.]*|libxlsr)[/\">]"
)
_POPENS_OWN_READ = ", 50000)"
MUST_STAND = ("write", "mkdir", "rename")  # calls that every restore makes


@dataclass(frozen=True)
class Bench:
    """An image, and a directory to restore it in."""

    directory: Path
    image: Path

    def run(self, *strace: str, helper: bool) -> subprocess.CompletedProcess[str]:
        """Restore under strace with these options."""
        for left in self.directory.iterdir():
            if left != self.image:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        tracer = ["strace", "-o", str(self.log), *strace]
        python = [sys.executable, str(DRIVER), str(self.image), str(self.output)]
        command = [*python, *tracer] if helper else [*tracer, *python]
        # Without bytecode files to write, each run makes the same calls.
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
        env["PYTHONPATH"] = str(Path(libxlsr.__file__).parents[1])
        return subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, env=env, check=False
        )

    @property
    def log(self) -> Path:
        return self.directory / "strace.log"

    @property
    def output(self) -> Path:
        return self.directory / "output"

    def calls(self, name: str, *, helper: bool) -> list[int]:
        """The numbers of the calls of ``name`` that the restore makes, as strace counts them."""
        result = self.run("-y", f"--trace={name},newfstatat,recvfrom", helper=helper)
        assert result.returncode == 0, result.stderr
        lines = self.log.read_text().splitlines()
        # The helper's interpreter is none of ours; its first message is where we come in.
        begin, end = ("recvfrom(", "+++ exited") if helper else (BEGIN, END)
        start, stop = (
            next(number for number, line in enumerate(lines) if mark in line)
            for mark in (begin, end)
        )
        called = [number for number, line in enumerate(lines) if line.startswith(f"{name}(")]
        ours: list[int] = []
        importing: list[int] = []
        for count, number in enumerate(called, 1):
            if start < number < stop and _POPENS_OWN_READ not in lines[number]:
                (importing if _IMPORTS.search(lines[number]) else ours).append(count)
        return importing[:1] + ours


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Orphans of what runs here become this process's children, so that they are seen."""
    assert shutil.which("strace"), "these tests need strace: apt-get install strace"
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    image = tmp_path / "image"
    builder = StreamBuilder("hvm", pages=4, xenstore=[("physmap/1/size", "2")])
    image.write_bytes(builder.build())
    yield Bench(tmp_path, image)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _inject_each(bench: Bench, name: str, error: str, *, helper: bool) -> int:
    calls = bench.calls(name, helper=helper)
    whole = _listing(bench.output)
    for number in calls:
        rule = f"{name}:error={error}:when={number}"
        result = bench.run(f"--trace={name}", f"--inject={rule}", helper=helper)
        _check_clean(bench, result, rule, whole)
    return len(calls)


def _check_clean(
    bench: Bench, result: subprocess.CompletedProcess[str], rule: str, whole: set[str]
) -> None:
    story = f"{rule}: exit code {result.returncode}, {result.stderr}"
    assert result.returncode in (0, 3, 4), story
    assert not re.search("Traceback|Exception ignored|Warning", result.stderr), story
    if bench.output.exists():
        # All was done, but for saying so.
        assert result.returncode == 0 or "refused a call" in result.stderr, story
        assert _listing(bench.output) == whole, story
    else:
        assert result.returncode != 0, story
        assert result.stderr.strip(), story
    left = {path.name for path in bench.directory.iterdir()}
    left -= {"image", "strace.log", "output", "output-first", "python-under-strace"}
    # What can't be listed or removed can't be undone; then the message says so.
    assert not left or "can't remove" in result.stderr, f"{story}, left: {left}"
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def _listing(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


@pytest.mark.parametrize(
    ("name", "error"), [(name, error) for name, errors in FAULTS.items() for error in errors]
)
def test_a_call_of_the_restore_fails(bench: Bench, name: str, error: str) -> None:
    injected = _inject_each(bench, name, error, helper=False)
    assert injected or name not in MUST_STAND
    print(f"{name} {error}: {injected} calls")


@pytest.mark.parametrize(
    ("name", "error"),
    [(name, error) for name, errors in HELPER_FAULTS.items() for error in errors],
)
def test_a_call_of_the_helper_fails(bench: Bench, name: str, error: str) -> None:
    print(f"{name} {error}: {_inject_each(bench, name, error, helper=True)} calls")
