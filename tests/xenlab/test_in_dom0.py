"""Runs the tests that need Xen's libraries and a hypervisor where those are: inside dom0."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from .host import Host
from .project import TREE_IN_DOM0

IN_DOM0 = Path(__file__).with_name("in_dom0")
# Each restores tens of domains, one after the other, under emulation.
RUN_SECONDS = 1200
# What is marked slow in there, in runs with a limit of its own each: names of tests in a module.
SLOW = [
    ("test_command", ""),
    ("test_cpu_pools", ""),
    ("test_damaged", "pv and not pvh"),
    ("test_damaged", "pvh"),
    ("test_device_model", ""),
    ("test_devices", "pv and not pvh"),
    ("test_devices", "pvh"),
    ("test_devices", "hvm"),
    ("test_devices_undone", ""),
    ("test_hvm", "linux"),
    ("test_hvm", "finishes"),
    ("test_hvm", "not linux and not finishes"),
    ("test_like_xl", ""),
    ("test_older_images", ""),
    ("test_restore", ""),
    ("test_toolstack_daemon", ""),
    ("test_undone", "not finishes"),
    ("test_undone", "finishes"),
    ("test_xenstore_fails", ""),
]
ATTEMPTS = 3


@dataclass(frozen=True)
class InDom0:
    """Runs modules' tests in the host's dom0."""

    host: Host
    capsys: pytest.CaptureFixture[str]

    def run(self, module: str, *options: str) -> None:
        """Run a module's tests; those that fail twice more, which is said.

        QEMU's emulation of nested SVM now and then turns a VM entry of a PVH or HVM guest into a
        triple fault, whoever made the guest.
        """
        command = ["python", "-m", "pytest", "-vv", "--tb=short", *options]
        for attempt in range(1, ATTEMPTS + 1):
            again = ["--last-failed"] if attempt > 1 else []
            words = [*command, *again, f"tests/xenlab/in_dom0/{module}.py"]
            result = self.host.run(
                f"cd {TREE_IN_DOM0} && {shlex.join(words)}",
                check=False,
                timeout=RUN_SECONDS,
            )
            print(result.stdout, result.stderr)
            if result.returncode == 0:
                return
            if attempt < ATTEMPTS:
                with self.capsys.disabled():
                    print(f"\n{result.stdout[-2000:]}\nxenlab: trying what failed again")
        pytest.fail(f"{module} failed {ATTEMPTS} times")


@pytest.fixture
def in_dom0(installed_host: Host, capsys: pytest.CaptureFixture[str]) -> InDom0:
    return InDom0(installed_host, capsys)


@pytest.mark.parametrize("module", sorted(path.stem for path in IN_DOM0.glob("test_*.py")))
def test_module(in_dom0: InDom0, module: str) -> None:
    in_dom0.run(module)


@pytest.mark.slow
@pytest.mark.parametrize(("module", "names"), SLOW)
def test_slow_ones(in_dom0: InDom0, module: str, names: str) -> None:
    in_dom0.run(module, "-m", "slow", "-k", names)
