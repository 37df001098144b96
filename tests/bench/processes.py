"""Runs whole programs and says how long they took."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

LIBXLSR = (sys.executable, "-m", "libxlsr")


class Took(NamedTuple):
    """Seconds: on the clock, and on the CPUs by all processes together."""

    wall: float
    cpu: float


def run_pipeline(
    *commands: Sequence[str],
    stdout: int = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
) -> Took:
    """Run ``commands``, each one's output the next one's input; ``stdout`` is the last one's.

    Raises RuntimeError when one fails.
    """
    start = time.perf_counter()
    processes: list[subprocess.Popen[bytes]] = []
    source: int | None = subprocess.DEVNULL
    for number, command in enumerate(commands, 1):
        last = number == len(commands)
        process = subprocess.Popen(
            command, stdin=source, stdout=stdout if last else subprocess.PIPE, env=env
        )
        if source is not None and source >= 0:
            os.close(source)
        source = None if process.stdout is None else os.dup(process.stdout.fileno())
        if process.stdout is not None:
            process.stdout.close()
        processes.append(process)
    cpu = 0.0
    for process in processes:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu += usage.ru_utime + usage.ru_stime
        if process.returncode != 0:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    return Took(time.perf_counter() - start, cpu)
