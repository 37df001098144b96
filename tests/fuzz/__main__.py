"""Runs the fuzz targets, each in a process of its own, and prints what came of them as a table."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import corpus

_DONE = re.compile(r"^Done (\d+) runs in (\d+) second", re.MULTILINE)
_COVERAGE = re.compile(r"cov: (\d+) ")


@dataclass(frozen=True)
class Outcome:
    """What came of fuzzing one target."""

    name: str
    runs: int
    seconds: int
    busy: int
    """Seconds of processor time."""
    coverage: int
    finding: str | None

    def __str__(self) -> str:
        verdict = "nothing" if self.finding is None else f"FOUND: {self.finding}"
        cells = [f"`{self.name}`", str(self.seconds), str(self.busy), f"{self.runs:,}"]
        return f"| {' | '.join([*cells, str(self.coverage), verdict])} |"


def fuzz(name: str, seconds: int, artifacts: Path, options: list[str]) -> Outcome:
    """Fuzz one target for ``seconds``, starting from its corpus in the tree."""
    with tempfile.TemporaryDirectory() as found, tempfile.TemporaryFile() as log:
        command = [sys.executable, "-m", f"{__package__}.engine", name]
        command += [f"-max_total_time={seconds}", f"-artifact_prefix={artifacts}/{name}-"]
        command += ["-timeout=60", "-rss_limit_mb=2048", *options]
        command += [found, str(corpus.CORPUS / name)]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        output = log.read().decode(errors="replace")
    done = _DONE.search(output)
    coverage = _COVERAGE.findall(output)
    finding = None
    if process.returncode or done is None:
        (artifacts / f"{name}.log").write_text(output)
        finding = f"see {artifacts / f'{name}.log'}"
    runs, taken = (int(done[1]), int(done[2])) if done else (0, 0)
    busy = round(usage.ru_utime + usage.ru_stime)
    return Outcome(name, runs, taken, busy, int(coverage[-1]) if coverage else 0, finding)


def main() -> int:
    """The command line; the exit code says whether anything was found."""
    names = corpus.target_names()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", metavar="TARGET", nargs="*", help=f"all, or: {' '.join(names)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="targets at a time")
    parser.add_argument("--artifacts", type=Path, help="where inputs that found something go")
    parser.add_argument("--write-seeds", action="store_true", help="write the corpus anew; no run")
    parser.add_argument("--list", action="store_true", help="print the targets' invariants; no run")
    parser.add_argument(
        "--option", action="append", default=[], help="one for libFuzzer: --option=-seed=1"
    )
    args = parser.parse_args()
    unknown = set(args.targets) - set(names)
    if unknown:
        parser.error(f"there is no target {' or '.join(sorted(unknown))}")
    args.targets = args.targets or names
    if args.list:
        for name in args.targets:
            invariant = (corpus.load(name).__doc__ or "").replace("\n", " ").strip()
            print(f"{name}: {invariant}")
        return 0
    if args.write_seeds:
        for name in args.targets:
            corpus.write_seeds(name)
        return 0
    artifacts = args.artifacts or Path(tempfile.mkdtemp(prefix="libxlsr-fuzz-"))
    artifacts.mkdir(parents=True, exist_ok=True)
    print("| target | seconds | busy | executions | coverage | found |")
    print("|---|---|---|---|---|---|")
    failed = False
    with ThreadPoolExecutor(args.jobs) as pool:
        running = [
            pool.submit(fuzz, name, args.seconds, artifacts, args.option) for name in args.targets
        ]
        for future in running:
            outcome = future.result()
            print(outcome, flush=True)
            failed = failed or outcome.finding is not None
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
