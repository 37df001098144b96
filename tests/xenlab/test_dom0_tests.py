"""What becomes of tests in dom0 is reported here, with a shell of this machine in dom0's place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

from . import dom0_tests
from .dom0_tests import ATTEMPTS, Dom0Tests
from .image import LabError

CONFTEST = """\
from tests.xenlab import report_lines
report_lines.lost_domains = list
"""


class Shell:
    """As much of a Host as the plugin needs."""

    kept = False

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.loaded_again = 0
        self.silent_from: Path | None = None
        """While this file is there, a host that was not loaded again does not answer."""

    def ssh_command(self) -> list[str]:
        return ["sh", "-c"]

    def run(
        self, command: str, *, check: bool = True, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        if self.silent_from is not None and self.silent_from.exists() and not self.loaded_again:
            raise LabError("no answer")
        return subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True)

    def put_bytes(self, data: bytes, target: str) -> None:
        Path(target).write_bytes(data)

    def load_again(self) -> None:
        self.loaded_again += 1


@pytest.fixture
def shell(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:randomly")
    monkeypatch.setattr(dom0_tests, "IN_DOM0", pytester.path)
    monkeypatch.setattr(dom0_tests, "TREE_IN_DOM0", str(pytester.path))
    monkeypatch.setattr(dom0_tests, "_NAMES", str(pytester.path / "names"))
    monkeypatch.setattr(dom0_tests, "_OUTPUT", str(pytester.path / "output"))
    monkeypatch.setattr(dom0_tests, "install_project", lambda host: None)
    pytester.makeconftest(CONFTEST)
    return Shell(pytester.path)


def run(pytester: pytest.Pytester, shell: Shell, tests: str) -> pytest.HookRecorder:
    pytester.makepyfile(tests)
    plugin = Dom0Tests(lambda: shell)  # type: ignore[arg-type, return-value]
    return pytester.inline_run(plugins=[plugin])


def test_each_outcome_comes_out(pytester: pytest.Pytester, shell: Shell) -> None:
    result = run(
        pytester,
        shell,
        """
        import os, pytest
        def test_passes(): assert "PYTEST_CURRENT_TEST" in os.environ
        def test_fails(): assert 1 == 2, "that is so"
        def test_skips(): pytest.skip("not here")
        @pytest.mark.xfail(strict=True)
        def test_is_expected_to_fail(): assert False
        @pytest.mark.parametrize("n", [1, 2])
        def test_of_a_parameter(n): assert n == 2
        """,
    )
    passed, skipped, failed = result.listoutcomes()
    assert [each.nodeid.partition("::")[2] for each in passed] == [
        "test_passes",
        "test_of_a_parameter[2]",
    ]
    assert [each.nodeid.partition("::")[2] for each in failed] == [
        "test_fails",
        "test_of_a_parameter[1]",
    ]
    assert "that is so" in failed[0].longreprtext
    assert len(skipped) == 2
    assert shell.loaded_again == 0


def test_what_lost_its_guest_runs_again(pytester: pytest.Pytester, shell: Shell) -> None:
    result = run(
        pytester,
        shell,
        """
        from pathlib import Path
        from tests.xenlab.in_dom0.guests import GuestLost
        def lose(name, times):
            path = Path(name)
            count = len(path.read_text()) if path.exists() else 0
            path.write_text("x" * (count + 1))
            if count < times:
                raise GuestLost("it has gone")
        def test_lost_once(): lose("once", 1)
        def test_lost_for_good(): lose("always", 100)
        def test_not_lost(): pass
        def test_fails(): assert False
        """,
    )
    passed, _, failed = result.listoutcomes()
    assert {each.nodeid.partition("::")[2] for each in passed} == {
        "test_lost_once",
        "test_not_lost",
    }
    assert {each.nodeid.partition("::")[2] for each in failed} == {
        "test_lost_for_good",
        "test_fails",
    }
    assert (pytester.path / "always").read_text() == "x" * ATTEMPTS
    assert shell.loaded_again == ATTEMPTS - 1


def test_the_test_in_which_pytest_ends_has_failed(pytester: pytest.Pytester, shell: Shell) -> None:
    result = run(
        pytester,
        shell,
        """
        import os
        def test_first(): pass
        def test_ends(): os._exit(3)
        def test_last(): pass
        """,
    )
    passed, _, (failed,) = result.listoutcomes()
    assert len(passed) == 2
    assert failed.nodeid.endswith("::test_ends")
    assert "pytest in dom0 ended" in failed.longreprtext
    assert "test_ends" in failed.longreprtext, "what it had said is there"
    assert shell.loaded_again == 1


def test_a_silent_one_has_failed(
    pytester: pytest.Pytester, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dom0_tests, "SILENCE_SECONDS", 5.0)
    monkeypatch.setattr(dom0_tests, "LOOK_SECONDS", 1.0)
    result = run(
        pytester,
        shell,
        """
        import signal
        def test_hangs(): signal.pause()
        """,
    )
    assert "nothing was heard for 5 s" in result.listoutcomes()[2][0].longreprtext


def test_one_whose_host_no_longer_answers_runs_again(
    pytester: pytest.Pytester, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dom0_tests, "LOOK_SECONDS", 2.0)
    shell.silent_from = pytester.path / "been-here"
    result = run(
        pytester,
        shell,
        """
        import signal
        from pathlib import Path
        def test_hangs_at_first():
            been_here = Path("been-here")
            if not been_here.exists():
                been_here.touch()
                signal.pause()
        def test_another(): pass
        """,
    )
    passed, _, failed = result.listoutcomes()
    assert (len(passed), len(failed)) == (2, 0)
    assert shell.loaded_again == 2
