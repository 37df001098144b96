"""The generated parts of the documentation are what the code says."""

from __future__ import annotations

import importlib.util

from tests.paths import ROOT


def test_documentation_has_not_drifted() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert [path.name for path, _wanted in generate.drifted()] == []
