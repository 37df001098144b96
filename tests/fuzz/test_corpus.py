"""Replays the fuzz targets' corpus: each input in the tree keeps its target's invariant."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import corpus

TARGETS = corpus.target_names()


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_keeps_the_invariant(name: str) -> None:
    target = corpus.load(name)
    for path in corpus.files(name):
        target.check(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_line_1_states_the_invariant(name: str) -> None:
    assert (corpus.load(name).__doc__ or "").startswith("Invariant: ")


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_in_the_tree_are_the_builders(name: str) -> None:
    in_tree = {path.name: path.read_bytes() for path in corpus.files(name)}
    for label, data in corpus.load(name).seeds().items():
        assert in_tree.get(f"seed-{label}") == data, (
            "write them: python -m tests.fuzz --write-seeds"
        )


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_small(name: str) -> None:
    assert sum(path.stat().st_size for path in corpus.files(name)) < 64 * 1024


def test_each_corpus_has_its_target() -> None:
    directories = {path.name for path in Path(corpus.CORPUS).iterdir()}
    assert directories == set(TARGETS)
