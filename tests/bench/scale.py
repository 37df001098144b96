"""How much a benchmark does."""

from __future__ import annotations

from typing import NamedTuple


class Scale(NamedTuple):
    """``image_mib``: memory of the guests that are restored. ``rounds``: repetitions, of which the
    medians are printed. ``records``: records, reads or callbacks in one repetition."""

    image_mib: int
    rounds: int
    records: int


FULL = Scale(image_mib=2048, rounds=5, records=20_000)
SHORT = Scale(image_mib=64, rounds=3, records=2_000)
