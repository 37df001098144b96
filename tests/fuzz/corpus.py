"""The corpus: a directory of small files for each target, and the targets themselves."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, cast

CORPUS = Path(__file__).parent / "corpus"


class Target(Protocol):
    """A module of ``targets``."""

    __doc__: str | None
    check: Callable[[bytes], None]
    seeds: Callable[[], Mapping[str, bytes]]


def target_names() -> list[str]:
    """Every target there is."""
    found = pkgutil.iter_modules([str(Path(__file__).parent / "targets")])
    return sorted(module.name for module in found)


def load(name: str) -> Target:
    """A target by its name."""
    return cast(Target, importlib.import_module(f"{__package__}.targets.{name}"))


def files(name: str) -> list[Path]:
    """A target's corpus in the tree."""
    return sorted((CORPUS / name).iterdir())


def write_seeds(name: str) -> None:
    """Write a target's seeds into the tree; what the fuzzer found stays."""
    directory = CORPUS / name
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("seed-*"):
        old.unlink()
    for label, data in load(name).seeds().items():
        (directory / f"seed-{label}").write_bytes(data)
