"""The program in the offline target's helper: reads the libxc stream from the fd into files.

Arguments: ``fd``, ``offset`` (where the libxc stream starts), ``prefix`` (its first bytes that were
read from the fd already, in hex), ``directory``, ``domain`` (type and number of vCPUs in the
configuration; None without one). The result is `LibxcRestore.run`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from libxlsr.errors import TargetError
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.helper.child import Channel
from libxlsr.libxc.guest import ConfiguredGuest
from libxlsr.restoring.image.libxc_restore import LibxcRestore
from libxlsr.source.exact_reader import ExactReader


def run(channel: Channel) -> dict[str, Any]:
    """Restore the libxc part; raises what went wrong."""
    return restore_libxc(channel, LibxcRestore)


def restore_libxc(channel: Channel, restore: type[LibxcRestore]) -> dict[str, Any]:
    """Have ``restore`` read the stream; raises what went wrong."""
    args = channel.receive_work()

    def checkpoint(consumed: int) -> tuple[CheckpointReply, int]:
        answer = channel.call("checkpoint", {"consumed": consumed})
        return CheckpointReply(answer["reply"]), answer["offset"]

    reader = ExactReader(args["fd"], args["offset"], bytes.fromhex(args["prefix"]))
    directory = Path(args["directory"])
    try:
        configured = ConfiguredGuest(*args["domain"] or ())
        return restore(reader, directory, channel.progress, checkpoint, configured).run()
    except OSError as error:
        doing = f"can't write the guest's memory and state in {directory.parent}"
        raise TargetError.from_oserror(error, doing) from error
