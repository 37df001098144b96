"""Runs the tests that need Xen's libraries and a hypervisor where those are: inside dom0."""

from __future__ import annotations

from pathlib import Path

import pytest

from .host import Host
from .project import TREE_IN_DOM0

IN_DOM0 = Path(__file__).with_name("in_dom0")
# One of these modules restores tens of domains, one after the other, under emulation.
MODULE_SECONDS = 1200


@pytest.mark.parametrize("module", sorted(path.stem for path in IN_DOM0.glob("test_*.py")))
def test_module(installed_host: Host, module: str) -> None:
    path = f"tests/xenlab/in_dom0/{module}.py"
    result = installed_host.run(
        f"cd {TREE_IN_DOM0} && python -m pytest -p no:cacheprovider -v --tb=short {path}",
        check=False,
        timeout=MODULE_SECONDS,
    )
    print(result.stdout, result.stderr)
    assert result.returncode == 0
