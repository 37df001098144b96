"""A few of the mutated images of ``python -m tests.tools.verify.mutations``, each time the same."""

from __future__ import annotations

import pytest

from .mutations import KINDS, run

# What a run of 10,000 found: docs/testing.md.
ONCE_WRONG = (1931, 3869, 4449, 5003, 5639, 6613, 8239)
SHARES = 4
EACH = 5 * len(KINDS)


@pytest.mark.parametrize(
    "share", [0, 1, *(pytest.param(share, marks=pytest.mark.slow) for share in range(2, SHARES))]
)
def test_verify_and_restore_say_the_same(share: int) -> None:
    first = 100_000 + share * EACH
    outcomes = set()
    for seed, kind, what, checked in run(range(first, first + EACH)):
        assert checked.right, (seed, kind, what, checked)
        outcomes.add(checked.outcome)
    assert outcomes == {"restored", "refused"}


def test_what_was_found_stays_mended() -> None:
    for seed, kind, what, checked in run(iter(ONCE_WRONG)):
        assert checked.right, (seed, kind, what, checked)
