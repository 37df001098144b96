"""What libxc's ``checkpoint`` callback returns (tools/include/xenguest.h, XGR_CHECKPOINT_*)."""

from __future__ import annotations

import enum


class CheckpointReply(enum.IntEnum):
    """What libxc shall do with a checkpoint whose libxl records were read."""

    ERROR = 0
    """Give up."""
    SUCCESS = 1
    """Apply the checkpoint and read the next one."""
    FAILOVER = 2
    """The sender is gone: go on as of the last checkpoint that was applied."""
