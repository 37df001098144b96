"""The program in an IndexTarget's helper; its arguments and result are ``worker``'s."""

from __future__ import annotations

from typing import Any

from libxlsr.helper.child import Channel
from libxlsr.restoring.image.index import IndexingRestore
from libxlsr.restoring.image.worker import restore_libxc


def run(channel: Channel) -> dict[str, Any]:
    """Index the libxc part; raises what went wrong."""
    return restore_libxc(channel, IndexingRestore)
