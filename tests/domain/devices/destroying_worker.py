"""Stands for the child that destroys a domain with its devices."""

from __future__ import annotations

import logging
from typing import Any

from libxlsr.helper.child import Channel


def run(channel: Channel) -> dict[str, Any]:
    args = channel.receive_work()
    channel.log(logging.INFO, f"{args['domid']}: destroyed")
    return {}
