"""Stands for the child that attaches devices: there is no Xen here.

It says what it does, and does what a device's ``json`` says.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from typing import Any

from libxlsr.errors import TargetError
from libxlsr.helper.child import Channel


def run(channel: Channel) -> dict[str, Any]:
    args = channel.receive_work()
    hang_at_the_end = False
    while devices := channel.call("next", {})["devices"]:
        for device in devices:
            channel.log(logging.INFO, f"{args['domid']}: {device['kind']} {device['words']}")
            if device["json"].get("do") == "fail":
                raise TargetError(f"could not attach its {device['words']}")
            if device["json"].get("do") == "hang":
                time.sleep(1000)
            hang_at_the_end |= device["json"].get("do") == "hang at the end"
            if device["json"].get("do") == "die":
                os.kill(os.getpid(), signal.SIGKILL)
    if hang_at_the_end:
        time.sleep(1000)
    return {}
