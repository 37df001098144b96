"""Each example runs, and prints what is written down in ``expected/``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

IMAGE = ROOT / "examples" / "hvm-ticker-xen4.17.save.xz"
EXPECTED = Path(__file__).with_name("expected")


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("list_records.py", [str(IMAGE)]),
        ("step_by_hand.py", []),
        ("read_counter.py", []),
        ("own_select_loop.py", []),
        ("own_selectors_loop.py", []),
        ("single_events.py", []),
    ],
)
def test_example_prints_what_is_expected(program: str, arguments: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, str(ROOT / "examples" / program), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert ran.stderr == ""
    assert ran.returncode == 0
    assert ran.stdout == EXPECTED.joinpath(program).with_suffix(".txt").read_text()


def test_readme_embedding_example_runs_as_written(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    program = readme.split("```python\n", 1)[1].split("```", 1)[0]
    program = program.replace('"embedded"', repr(str(tmp_path / "embedded")))
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ran.stderr == ""
    assert ran.stdout == "ticker {'NOTAB': 752, 'XTAB': 1043728}\n"
