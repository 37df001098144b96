"""Damage is the same for the same seed, changes the stream, and reaches every kind of it."""

from __future__ import annotations

import pytest

from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.damage import damage
from libxlsr.testing.parts import record_part

SEEDS = range(400)


def test_the_same_seed_does_the_same() -> None:
    parts = StreamBuilder("pv").parts
    for seed in SEEDS[:20]:
        assert damage(parts, seed) == damage(parts, seed)


def test_the_parts_are_left_as_they_are() -> None:
    stream = StreamBuilder("hvm", emulator=b"12345")
    right = stream.build()
    changed = sum(damage(stream.parts, seed).data != right for seed in SEEDS)
    assert stream.build() == right
    assert changed > 0.9 * len(SEEDS)


def test_every_kind_of_damage_is_done() -> None:
    parts = StreamBuilder("hvm", emulator=b"12345").parts
    done = " ".join(damage(parts, seed).what for seed in SEEDS)
    for words in (
        "bytes long",
        "has type",
        "is left out",
        "comes twice",
        "change places",
        "cut after",
        "has padding",
        "is flipped",
        "frames",
        "of frame",
    ):
        assert words in done


def test_a_stream_of_one_empty_record_can_be_damaged() -> None:
    parts = [record_part(0, layer="libxl")]
    assert all(damage(parts, seed).what for seed in SEEDS[:50])


def test_nothing_can_not_be_damaged() -> None:
    with pytest.raises(ValueError, match="empty stream"):
        damage([], 1)
