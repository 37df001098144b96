"""The questions that the build asks of Xen's headers are asked of made-up headers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cffi_build import probe


@pytest.fixture
def headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory in which the "installed" headers are."""

    def pkg_config(*arguments: str) -> list[str]:
        return [f"-I{tmp_path}"] if arguments[0] == "--cflags" else ["4.99.1"]

    monkeypatch.setattr(probe, "pkg_config", pkg_config)
    return tmp_path


def test_what_is_declared_is_found(headers: Path) -> None:
    (headers / "made_up.h").write_text("struct config { int old, new; }; int call(int);\n")
    assert probe.compiles('#include "made_up.h"\nint p(struct config *c) { return call(c->new); }')


@pytest.mark.parametrize(
    "declared",
    [
        "struct config { int old; }; int call(int);",
        "struct config { int old, new; };",
        "struct config { int old, new; }; int call(int, unsigned);",
    ],
    ids=["no such member", "no such function", "another signature"],
)
def test_what_is_not_declared_is_not_found(headers: Path, declared: str) -> None:
    (headers / "made_up.h").write_text(declared)
    program = '#include "made_up.h"\nint p(struct config *c) { return call(c->new); }'
    assert not probe.compiles(program)


def test_a_missing_package_is_an_error() -> None:
    with pytest.raises((subprocess.CalledProcessError, FileNotFoundError)):
        probe.pkg_config("--modversion", "no-such-package-as-this")
