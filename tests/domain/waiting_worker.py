"""Stands for the child in which libxenguest reads: the stream never ends."""

from __future__ import annotations

import signal
from typing import Any

from libxlsr.helper.child import Channel


def run(channel: Channel) -> dict[str, Any]:
    channel.receive_work()
    while True:
        signal.pause()
