"""One system call of an offline restore fails, each in its turn: a clean failure, or success.

strace injects the error, into the restoring process or into its helper. Which calls there are is
read from a run without faults; each of them fails with each error, whether its manual knows that
one or not. Clean means: exit code 0, 3 or 4 (never 1: nothing is wrong with the stream), no
traceback, the output complete or absent, no process, fd or file left behind.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import libxlsr
from libxlsr.testing.builder import StreamBuilder

from .driver import BEGIN, END

pytestmark = pytest.mark.slow

PATIENCE = 120
DRIVER = Path(__file__).parent / "driver.py"
ERRORS = ("EINTR", "EAGAIN", "ENOSPC", "EIO", "EMFILE", "ENOMEM")

NOT_MADE_TO_FAIL = {
    # The kernel closes whatever it answers; a call that strace lets fail is never made, and the fd
    # would stay open.
    "close",
    # These can't fail, or there is nobody to tell.
    *("exit_group", "getpid", "munmap", "rt_sigaction", "rt_sigprocmask"),
    # pthread_create() and free() look after these themselves.
    *("futex", "madvise", "mprotect", "rseq", "set_robust_list"),
}
# The import of a module; one of many such calls is enough.
_IMPORTS = re.compile(
    r"\.pyc?[\">]|\.so[\d.]*[\">]|/(lib|lib64|site-packages|python3[\d.]*|libxlsr)[/\">]"
)
# subprocess reads from the child that it made whether exec() worked. A pipe that is read with a
# blocking read() gives no error, and Popen would forget the child.
_POPENS_OWN_READ = ", 50000)"
MUST_STAND = {False: {"write", "mkdir", "rename", "pselect6"}, True: {"readv", "pwrite64", "fsync"}}
"""Calls that every restore makes, and its helper."""


@dataclass(frozen=True)
class Case:
    """What came of one restore under strace."""

    code: int
    stderr: str
    files: list[str]
    orphans: int


class Bench:
    """An image, a directory to restore it in, and the driver that does it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "cases"
        self.directory.mkdir()
        image = directory / "image"
        builder = StreamBuilder("hvm", pages=4, xenstore=[("physmap/1/size", "2")])
        image.write_bytes(builder.build())
        # Without bytecode files to write, each run makes the same calls.
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
        env["PYTHONPATH"] = str(Path(libxlsr.__file__).parents[1])
        self.driver = subprocess.Popen(
            [sys.executable, str(DRIVER), str(image), str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )

    def run(self, *strace: str, helper: bool) -> Case:
        """Restore under strace with these options."""
        assert self.driver.stdin is not None
        assert self.driver.stdout is not None
        print(json.dumps({"strace": strace, "helper": helper}), file=self.driver.stdin, flush=True)
        if not select.select([self.driver.stdout], [], [], PATIENCE)[0]:
            self.driver.kill()
            raise AssertionError(f"no end after {PATIENCE} s: {strace}")
        answer: dict[str, Any] = json.loads(self.driver.stdout.readline())
        return Case(**answer)

    def calls(self, *, helper: bool) -> tuple[dict[str, list[int]], list[str]]:
        """The calls that a restore makes, as strace counts them; and the files that it leaves."""
        whole = self.run("-y", helper=helper)
        assert whole.code == 0, whole.stderr
        lines = (self.directory / "log").read_text().splitlines()
        # The helper's interpreter is none of ours; its first message is where we come in.
        begin, end = ("recvmsg(", "+++ exited") if helper else (BEGIN, END)
        start, stop = (
            next(number for number, line in enumerate(lines) if mark in line)
            for mark in (begin, end)
        )
        counted: Counter[str] = Counter()
        ours: dict[str, list[int]] = {}
        importing: dict[str, int] = {}
        for place, line in enumerate(lines):
            name, bracket, _ = line.partition("(")
            if not bracket or not name.isidentifier():
                continue
            counted[name] += 1
            if not start < place < stop or name in NOT_MADE_TO_FAIL or _POPENS_OWN_READ in line:
                continue
            if _IMPORTS.search(line):
                importing.setdefault(name, counted[name])
            else:
                ours.setdefault(name, []).append(counted[name])
        for name, number in importing.items():
            ours.setdefault(name, []).insert(0, number)
        return ours, whole.files


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    assert shutil.which("strace"), "these tests need strace: apt-get install strace"
    made = Bench(tmp_path_factory.mktemp("faults"))
    yield made
    made.driver.communicate()
    assert made.driver.returncode == 0


@pytest.mark.parametrize("helper", [False, True], ids=["restore", "helper"])
@pytest.mark.parametrize("error", ERRORS)
def test_each_call_fails(bench: Bench, error: str, helper: bool) -> None:
    calls, whole = bench.calls(helper=helper)
    assert MUST_STAND[helper] <= calls.keys()
    unclean = []
    for name, numbers in calls.items():
        for number in numbers:
            rule = f"{name}:error={error}:when={number}"
            case = bench.run(f"--trace={name}", f"--inject={rule}", helper=helper)
            unclean += [f"{rule}: {what}: {case}" for what in _unclean(case, whole)]
    print(f"{error}: {sum(map(len, calls.values()))} calls of {len(calls)} kinds")
    assert not unclean, "\n".join(unclean)


def _unclean(case: Case, whole: list[str]) -> Iterator[str]:
    """What is wrong with the way in which a restore ended."""
    if case.code not in (0, 3, 4):
        yield "exit code"
    if re.search("Traceback|Exception ignored|Warning", case.stderr):
        yield "traceback"
    if case.orphans:
        yield "a process was left behind"
    if "output" in case.files:
        # All was done, but for saying so.
        said = re.search("refused a call|can't write to standard output", case.stderr)
        if case.code != 0 and not said:
            yield "it failed, and the output is there"
        if set(case.files) != set(whole):
            yield "the output is incomplete"
        return
    if case.code == 0 or not case.stderr.strip():
        yield "success without an output, or failure without a word"
    left = [name for name in case.files if name.startswith(".output")]
    # What can't be listed or removed can't be undone; then the message says so.
    if left and "can't remove" not in case.stderr:
        yield "files were left behind"
