"""pytest's plugin for the tests in ``in_dom0``: they run inside dom0, where Xen's libraries are.

They are collected here as any others, so that pytest's options mean what they always mean. When the
first one's turn comes, all of them are started in one pytest process in dom0 (report_lines.py), and
what that reports of each test is reported here as it comes.

A test that lost its guest (`GuestLost`) says nothing about the project, nor does one in which dom0
stopped answering: now and then the emulation loses one of its processors. Such tests run again, on
the host as it was loaded, up to ATTEMPTS times in all. Where the process ends in a test, or is
silent, that test has failed, and a new process runs the rest.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from .host import Host
from .image import LabError
from .project import TREE_IN_DOM0, install_project
from .report_lines import GUEST_LOST, REPORTS_FD

IN_DOM0 = Path(__file__).with_name("in_dom0")
ATTEMPTS = 3
# Longer than pytest's faulthandler_timeout (setup.cfg), which has said by then where a test hangs.
SILENCE_SECONDS = 900.0
# After so long without a report dom0 is asked for a sign of life, and given so long for it.
LOOK_SECONDS = 60.0
_NAMES = "/run/xenlab-tests"
_OUTPUT = "/run/xenlab-tests.log"
_OUTPUT_TAIL = 6000


def runs_in_dom0(item: pytest.Item) -> bool:
    return IN_DOM0 in item.path.parents


class Dom0Tests:
    """Runs a session's tests in the dom0 of a host, which is asked for when they begin."""

    def __init__(self, host: Callable[[], Host]) -> None:
        self._host = host
        self._attempt = 0
        self._process: _Process | None = None
        self._waiting: dict[str, pytest.Item] = {}
        self._reports: dict[str, list[pytest.TestReport]] = {}
        self._lost: list[pytest.Item] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """All in a row, whatever the order is otherwise."""
        items.sort(key=lambda item: not runs_in_dom0(item))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Any:
        if not runs_in_dom0(item):
            return None
        if self._attempt == 0:
            self._begin(each for each in item.session.items if runs_in_dom0(each))
        self._run(item)
        if nextitem is None or not runs_in_dom0(nextitem):
            while self._lost:
                lost, self._lost = self._lost, []
                print(f"\nxenlab: guests were lost, trying that again: {len(lost)} tests")
                self._host().load_again()
                self._begin(lost)
                for each in lost:
                    self._run(each)
        return True

    def pytest_unconfigure(self) -> None:
        if self._process is not None:  # interrupted, or with -x
            self._process.stop()
            if self._host().kept:
                self._host().load_again()

    def _begin(self, items: Iterable[pytest.Item]) -> None:
        self._attempt += 1
        self._waiting = {item.nodeid: item for item in items}
        self._reports.clear()
        self._start()

    def _start(self) -> None:
        host = self._host()
        install_project(host)
        self._process = _Process(host, self._waiting)

    def _run(self, item: pytest.Item) -> None:
        """Report what became of a test, unless it lost its guest and will be tried again."""
        hook, where = item.ihook, {"nodeid": item.nodeid, "location": item.location}
        hook.pytest_runtest_logstart(**where)
        reports = self._reports_of(item)
        if _lost_its_guest(reports) and self._attempt < ATTEMPTS:
            self._lost.append(item)
        else:
            for report in reports:
                hook.pytest_runtest_logreport(report=report)
        hook.pytest_runtest_logfinish(**where)

    def _reports_of(self, item: pytest.Item) -> list[pytest.TestReport]:
        """The reports of a test's phases; waits for them."""
        while item.nodeid not in self._reports:
            assert self._process is not None
            try:
                nodeid, data = self._process.next_finished()
            except _ProcessEnded as end:
                failed = self._waiting.pop(end.nodeid or item.nodeid)
                self._reports[failed.nodeid] = [_failure(failed, end)]
                self._process = None
                if self._waiting:
                    self._host().load_again()
                    self._start()
            else:
                self._waiting.pop(nodeid)
                self._reports[nodeid] = [
                    item.config.hook.pytest_report_from_serializable(config=item.config, data=each)
                    for each in data
                ]
                if not self._waiting:
                    self._process.wait()
                    self._process = None
        return self._reports.pop(item.nodeid)


def _lost_its_guest(reports: Iterable[pytest.TestReport]) -> bool:
    # A property's pair comes out of JSON as a list.
    return any([*pair] == [GUEST_LOST, True] for r in reports for pair in r.user_properties)


def _failure(item: pytest.Item, end: _ProcessEnded) -> pytest.TestReport:
    lost = [(GUEST_LOST, True)] if end.with_its_host else []
    return pytest.TestReport(
        item.nodeid, item.location, {}, "failed", str(end), "call", user_properties=lost
    )


class _ProcessEnded(Exception):
    """The process in dom0 ended, or says nothing any more; `nodeid` is the test it was in."""

    def __init__(self, why: str, nodeid: str | None, with_its_host: bool) -> None:
        super().__init__(why)
        self.nodeid = nodeid
        self.with_its_host = with_its_host


class _Process:
    """pytest in dom0."""

    def __init__(self, host: Host, nodeids: Iterable[str]) -> None:
        host.put_bytes("".join(f"{nodeid}\n" for nodeid in nodeids).encode(), _NAMES)
        options = ["-p", "tests.xenlab.report_lines", "-p", "no:cacheprovider", "-m", "", "-v"]
        pytest_there = shlex.join(["python", "-m", "pytest", *options, f"@{_NAMES}"])
        self._host = host
        self._child = subprocess.Popen(
            [
                *host.ssh_command(),
                f"cd {TREE_IN_DOM0} && exec {pytest_there} {REPORTS_FD}>&1 >{_OUTPUT} 2>&1",
            ],
            cwd=host.run_dir,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        self._heard = b""
        self._in: str | None = None
        self._reports: list[Any] = []

    def next_finished(self) -> tuple[str, list[Any]]:
        """The next test that has finished, and its reports as pytest serializes them."""
        while True:
            message = json.loads(self._line())
            if "started" in message:
                self._in, self._reports = message["started"], []
            elif "report" in message:
                self._reports.append(message["report"])
            else:
                self._in = None
                return message["finished"], self._reports

    def _line(self) -> bytes:
        assert self._child.stdout is not None
        fd = self._child.stdout.fileno()
        silent_since = time.monotonic()
        while b"\n" not in self._heard:
            if not select.select([fd], [], [], LOOK_SECONDS)[0]:
                if not self._host_answers():
                    self.stop()
                    raise _ProcessEnded("dom0 no longer answers", self._in, with_its_host=True)
                if time.monotonic() - silent_since > SILENCE_SECONDS:
                    raise self._end(f"nothing was heard for {SILENCE_SECONDS:.0f} s")
                continue
            data = os.read(fd, 1 << 16)
            if not data:
                raise self._end("pytest in dom0 ended")
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return line

    def _host_answers(self) -> bool:
        try:
            self._host.run("true", check=False, timeout=LOOK_SECONDS)
        except LabError:
            return False
        return True

    def _end(self, why: str) -> _ProcessEnded:
        try:
            said = self._host.run(f"tail -c {_OUTPUT_TAIL} {_OUTPUT}", timeout=60).stdout
        except LabError as error:
            said = str(error)
        self.stop()
        why = f"{why}; what it had said:\n{said}"
        return _ProcessEnded(why, self._in, with_its_host=False)

    def wait(self) -> None:
        """Wait for its end: all tests have finished, and fixtures of the whole session end."""
        try:
            self._child.communicate(timeout=SILENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.stop()

    def stop(self) -> None:
        """End the connection; what runs in dom0 may run on."""
        self._child.kill()
        self._child.communicate()
