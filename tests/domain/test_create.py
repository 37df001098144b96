"""What is said of a domain that is not placed on NUMA nodes, and which are set."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest

from libxlsr.domain.config import read_config
from libxlsr.domain.create import set_up_domain
from libxlsr.formats import xl

from .hosts import HOST


def affinities_of(tree: dict[str, Any], *, nodes: int) -> list[str]:
    """Sets a domain up on a host of so many nodes; which affinities it was given."""
    xenctrl, xenstore = MagicMock(), MagicMock()
    xenctrl.physinfo.return_value = HOST._replace(nr_nodes=nodes)
    xenstore.read.return_value = None
    set_up_domain(xenctrl, xenstore, read_config(xl.Config.from_json(tree)), 7)
    return [name for name, *_ in xenctrl.method_calls if name.endswith("affinity")]


def test_a_host_with_nodes_to_choose_from(
    tree: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert affinities_of(tree, nodes=2) == []
    (line,) = caplog.messages
    assert "is not placed on one of this host's 2 NUMA nodes" in line
    assert "b_info.nodemap=[NODE]" in line


@pytest.mark.parametrize(
    ("nodes", "b_info", "given"),
    [
        (1, {}, []),
        (2, {"numa_placement": "False"}, []),
        (2, {"nodemap": [1]}, ["domain_node_setaffinity"]),
        (2, {"vcpu_soft_affinity": [[0], [1]]}, 2 * ["vcpu_setaffinity"]),
        (2, {"vcpu_hard_affinity": [[0], [1]]}, 2 * ["vcpu_setaffinity"]),
    ],
)
def test_nothing_is_said_where_there_is_nothing_to_choose(
    tree: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    nodes: int,
    b_info: dict[str, Any],
    given: list[str],
) -> None:
    tree["b_info"].update(b_info)
    assert affinities_of(tree, nodes=nodes) == given
    assert caplog.messages == []
