"""Runs the tests that need Xen's libraries and a hypervisor where those are: inside dom0."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from .host import Host
from .in_dom0 import GUEST_LOST
from .project import TREE_IN_DOM0

IN_DOM0 = Path(__file__).with_name("in_dom0")
# Each restores tens of domains, one after the other, under emulation.
RUN_SECONDS = 1200
MODULES = sorted(path.stem for path in IN_DOM0.glob("test_*.py"))
# What is marked slow in there runs by itself, module by module; these in parts, each with a limit
# of its own: names of tests.
PARTS = {
    "test_damaged": ["pvh", "not pvh"],
    "test_devices": ["pvh", "hvm", "not pvh and not hvm"],
    "test_hvm": ["linux", "finishes", "not linux and not finishes"],
    "test_undone": ["finishes", "not finishes"],
}
ATTEMPTS = 3


@dataclass(frozen=True)
class InDom0:
    """Runs modules' tests in the host's dom0."""

    host: Host
    capsys: pytest.CaptureFixture[str]

    def run(self, module: str, *options: str) -> None:
        """Run a module's tests; what lost its guest runs again, up to ATTEMPTS times in all.

        QEMU's emulation of nested SVM now and then turns a VM entry of a PVH or HVM guest into a
        triple fault, whoever made the guest.
        """
        command = ["python", "-m", "pytest", "-vv", "--tb=short", *options]
        again = ["--cache-clear"]  # --last-failed would take what is left there of another run
        for _ in range(ATTEMPTS):
            words = [*command, *again, f"tests/xenlab/in_dom0/{module}.py"]
            result = self.host.run(
                f"cd {TREE_IN_DOM0} && {shlex.join(words)}", check=False, timeout=RUN_SECONDS
            )
            print(result.stdout, result.stderr)
            if result.returncode != GUEST_LOST:
                break
            with self.capsys.disabled():
                print(f"\n{result.stdout[-2000:]}\nxenlab: a guest was lost, trying that again")
            again = ["--last-failed"]
        none_is_slow = bool(options) and result.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
        assert result.returncode == pytest.ExitCode.OK or none_is_slow


@pytest.fixture
def in_dom0(installed_host: Host, capsys: pytest.CaptureFixture[str]) -> InDom0:
    return InDom0(installed_host, capsys)


@pytest.mark.parametrize("module", MODULES)
def test_module(in_dom0: InDom0, module: str) -> None:
    in_dom0.run(module)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "names"),
    [(module, names) for module in MODULES for names in PARTS.get(module, [""])],
)
def test_slow_ones(in_dom0: InDom0, module: str, names: str) -> None:
    in_dom0.run(module, "-m", "slow", "-k", names)
