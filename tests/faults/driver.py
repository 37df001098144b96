"""Forks the processes that are put under strace: ``python driver.py IMAGE DIRECTORY``.

A case is a line of JSON on standard input, its answer one on standard output. This process restores
IMAGE once, so that all is imported; each case is a fork of it, which restores as a person would on
the command line, between two calls that mark this in strace's log. Traced is that process, or
with "helper" its helper.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from libxlsr.cli.main import main
from libxlsr.testing.leaks import Holdings

BEGIN, END = "/here-the-restore-begins", "/here-the-restore-ends"
LEAKED = 99
"""The exit code that says that something was left open."""
TRACEBACK = 98
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


class Driver:
    """Runs cases in ``directory``, which holds their output, messages and log."""

    def __init__(self, image: str, directory: Path) -> None:
        self.image = image
        self.directory = directory
        self.python = sys.executable

    def run(self, strace: list[str], *, helper: bool) -> dict[str, Any]:
        """Restore under strace with these options; what came of it."""
        for left in self.directory.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        command = ["strace", "-o", str(self.directory / "log"), *strace]
        pid = os.fork()
        if pid == 0:
            if helper:
                self._trace_helper(command)
            else:
                os.kill(os.getpid(), signal.SIGSTOP)  # until strace is there
            os._exit(self._restore_and_look())
        with contextlib.nullcontext() if helper else _attached(pid, command):
            _, status = os.waitpid(pid, 0)
        answer = {
            "code": os.waitstatus_to_exitcode(status),
            "stderr": (self.directory / "stderr").read_text(),
            "files": sorted(str(p.relative_to(self.directory)) for p in self.directory.rglob("*")),
            "orphans": self._orphans(),
        }
        return answer

    def restore(self) -> int:
        """The exit code of ``libxlsr restore``."""
        output = str(self.directory / "output")
        try:
            return main(["restore", self.image, "--target", "image", "--output", output])
        except SystemExit as left:
            return int(left.code or 0)

    def _restore_and_look(self) -> int:
        for number, name in ((1, "stdout"), (2, "stderr")):
            with open(self.directory / name, "wb") as file:
                os.dup2(file.fileno(), number)
        before = Holdings.now()
        os.path.exists(BEGIN)
        try:
            code = self.restore()
        except BaseException:
            traceback.print_exc()
            code = TRACEBACK
        os.path.exists(END)
        # A command that could not print lets go of its standard output.
        leaked = [line for line in before.leaked() if not line.startswith("fd 1:")]
        if leaked:
            print(f"left behind: {leaked}", file=sys.stderr)
            code = LEAKED
        sys.stderr.flush()
        return code

    def _trace_helper(self, command: list[str]) -> None:
        """Have the next helper run under strace."""
        script = self.directory / "python-under-strace"
        script.write_text(
            f'#!/bin/sh\nexec {shlex.join(command)} {shlex.quote(self.python)} "$@"\n'
        )
        script.chmod(0o700)
        sys.executable = str(script)

    def _orphans(self) -> int:
        """How many processes the case has left; they became children of this one."""
        children = Path("/proc/self/task") / str(os.getpid()) / "children"
        pids = [int(pid) for pid in children.read_text().split()]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return len(pids)


@contextlib.contextmanager
def _attached(pid: int, command: list[str]) -> Iterator[None]:
    """Let the stopped process go on as soon as strace has it; wait for strace's end."""
    os.waitpid(pid, os.WUNTRACED)
    strace = subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.PIPE, text=True)
    with strace:
        assert strace.stderr is not None
        for line in strace.stderr:
            if "attached" in line:
                break
        else:
            raise RuntimeError(f"strace could not trace {pid}")
        os.kill(pid, signal.SIGCONT)
        yield


def serve(image: str, directory: Path) -> None:
    """Answer one case after the other."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    driver = Driver(image, directory)
    with os.fdopen(os.dup(1), "w") as answers, open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 1)
        if driver.restore():
            raise SystemExit("the first restore failed")
        sys.stdout.flush()
        for line in sys.stdin:
            print(json.dumps(driver.run(**json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
