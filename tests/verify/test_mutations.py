"""A few of the mutated images of ``python -m tests.verify.mutations``, each time the same."""

from __future__ import annotations

import pytest

from .mutations import KINDS, run

SHARES = 4
EACH = 5 * len(KINDS)


@pytest.mark.parametrize("share", range(SHARES))
def test_verify_and_restore_say_the_same(share: int) -> None:
    first = 100_000 + share * EACH
    outcomes = set()
    for seed, kind, what, checked in run(range(first, first + EACH)):
        assert checked.right, (seed, kind, what, checked)
        outcomes.add(checked.outcome)
    assert outcomes == {"restored", "refused"}
