"""Two hosts and the link between them: a guest goes over it, and it can be cut and mended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .guests import Guest, saved_linux
from .pair import ADDRESSES, Pair, boot_pair
from .recipe import RECIPES
from .residue import residue


@pytest.fixture
def mixed_hosts() -> Iterator[Pair]:
    """Two of different releases, the older first."""
    pair = boot_pair(*sorted(RECIPES))
    yield pair
    pair.shut_down()


def migrates(pair: Pair) -> None:
    """A guest of the first host is migrated by xl to the second, where it ticks on."""
    before = residue(pair.first)
    saved = saved_linux(pair.first, "pvh")
    # As xl calls it while it arrives.
    there = Guest(pair.second, saved.name, first_name=f"{saved.name}--incoming")
    guest = Guest(pair.first, saved.name)
    guest.restore(saved.image)
    guest.wait_for_tick(saved.last_tick.number + 1)
    try:
        pair.first.run(f"xl migrate {guest.name} {ADDRESSES[1]}")
        last = guest.ticks()[-1]
        tick = there.wait_for_tick(last.number + 2)
    finally:
        there.destroy()
    assert tick.digest == saved.last_tick.digest
    assert residue(pair.first) == before


@pytest.mark.slow
def test_a_guest_migrates_over_the_link(two_hosts: Pair) -> None:
    migrates(two_hosts)


@pytest.mark.slow
def test_the_link_is_cut_and_mended(two_hosts: Pair) -> None:
    ping = f"busybox ping -c 1 -w 5 {ADDRESSES[1]}"
    two_hosts.cut_link()
    assert two_hosts.first.run(ping, check=False).returncode != 0
    two_hosts.mend_link()
    assert two_hosts.first.run(f"until {ping}; do sleep 1; done").returncode == 0


@pytest.mark.slow
def test_a_guest_migrates_to_a_newer_xen(mixed_hosts: Pair) -> None:
    migrates(mixed_hosts)
