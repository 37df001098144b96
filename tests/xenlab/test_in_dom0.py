"""Runs the tests that need Xen's libraries and a hypervisor where those are: inside dom0."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from .host import Host
from .project import TREE_IN_DOM0

IN_DOM0 = Path(__file__).with_name("in_dom0")
# Each restores tens of domains, one after the other, under emulation.
RUN_SECONDS = 1200
# What is marked slow in there, in runs with a limit of its own each: names of tests in a module.
SLOW = [
    ("test_damaged", ""),
    ("test_devices", "pv and not pvh"),
    ("test_devices", "pvh"),
    ("test_devices", "hvm"),
    ("test_devices_undone", ""),
    ("test_hvm", "linux"),
    ("test_hvm", "finishes"),
    ("test_hvm", "not linux and not finishes"),
    ("test_like_xl", ""),
    ("test_restore", ""),
    ("test_undone", "not finishes"),
    ("test_undone", "finishes"),
    ("test_xenstore_fails", ""),
]


def run_in_dom0(host: Host, module: str, *options: str) -> None:
    result = host.run(
        f"cd {TREE_IN_DOM0} && python -m pytest -p no:cacheprovider -vv --tb=short"
        f" {shlex.join(options)} tests/xenlab/in_dom0/{module}.py",
        check=False,
        timeout=RUN_SECONDS,
    )
    print(result.stdout, result.stderr)
    assert result.returncode == 0


@pytest.mark.parametrize("module", sorted(path.stem for path in IN_DOM0.glob("test_*.py")))
def test_module(installed_host: Host, module: str) -> None:
    run_in_dom0(installed_host, module)


@pytest.mark.slow
@pytest.mark.parametrize(("module", "names"), SLOW)
def test_slow_ones(installed_host: Host, module: str, names: str) -> None:
    run_in_dom0(installed_host, module, "-m", "slow", "-k", names)
