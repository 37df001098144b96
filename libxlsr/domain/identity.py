"""Whether a domain's name and UUID are free: at most one domain that is alive has each.

Two restores of one image may begin at the same time, in one program or in two. So this is asked
three times: when all is checked, again right before the domain is made, because time may have
passed (ballooning), and in the transaction that writes the domain's nodes, where the first wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable

from libxlsr.domain.config import DomainConfig
from libxlsr.errors import TargetError
from libxlsr.formats.text import printable
from libxlsr.xen.xenctrl import Xenctrl
from libxlsr.xen.xenstore import Nodes, Xenstore


def problems(config: DomainConfig, xenctrl: Xenctrl, xenstore: Xenstore) -> Iterator[str]:
    """What stands in the way, each as a part of a sentence."""
    for other in xenctrl.domains():
        if other.dying:
            continue
        if xenstore.read(f"/local/domain/{other.domid}/name") == config.name:
            yield _name_taken(other.domid, config)
        if other.uuid == config.uuid:
            yield _uuid_taken(other.domid, config)


def require_free(config: DomainConfig, xenctrl: Xenctrl, xenstore: Xenstore) -> None:
    """Raises TargetError where another domain has the name or the UUID."""
    found = list(problems(config, xenctrl, xenstore))
    if found:
        raise TargetError("; ".join(found))


def require_unclaimed(
    nodes: Nodes, config: DomainConfig, domid: int, is_alive: Callable[[int], bool]
) -> None:
    """Raises TargetError where xenstore's nodes of another domain have the name or the UUID.

    Goes by nodes alone: of two domains with the same UUID the one has it that has written so. For
    the transaction that writes them; xenstored refuses its commit where another came in between.
    ``is_alive`` says whether Xen has a domain: a dead one's nodes, which a toolstack that died
    leaves behind, claim nothing.
    """
    for other in nodes.directory("/local/domain") or ():
        if other == str(domid) or not other.isdecimal():
            continue
        home = f"/local/domain/{other}"
        same_name = nodes.read(f"{home}/name") == config.name
        same_uuid = nodes.read(f"{home}/vm") == f"/vm/{config.uuid}"
        if (same_name or same_uuid) and is_alive(int(other)):
            taken = _name_taken if same_name else _uuid_taken
            raise TargetError(taken(int(other), config))


def _name_taken(other: int, config: DomainConfig) -> str:
    name = printable(config.name, 80)
    return f"domain {other} has the name {name} already (choose another with --name)"


def _uuid_taken(other: int, config: DomainConfig) -> str:
    return (
        f"domain {other} has the UUID {config.uuid} already "
        "(choose another with --config-override uuid=new)"
    )
