"""The program in an extraction's helper: writes the output from an index or an offline restore.

Arguments: ``directory``, ``image_fd`` (null where the directory is an offline restore), ``output``
(a path that must not exist), ``format``, ``frames``, ``vaddr``, ``cr3`` (as in `Request`). The
result: ``size`` of the file, ``copied`` (bytes of guest memory).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from libxlsr.errors import TargetError
from libxlsr.helper.child import Channel
from libxlsr.tools.extract import elf_core, lime, raw, xen_core
from libxlsr.tools.extract.frames import Frames
from libxlsr.tools.extract.request import Guest, Request
from libxlsr.tools.extract.sparse_file import SparseFile
from libxlsr.tools.extract.vcpus import guest_width, read_vcpus

_WRITERS = {
    "raw": raw.write,
    "elf": elf_core.write,
    "xen-core": xen_core.write,
    "lime": lime.write,
}


def run(channel: Channel) -> dict[str, Any]:
    """Write the file; raises what went wrong."""
    args = channel.receive_work()
    frames_range, vaddr = args["frames"], args["vaddr"]
    request = Request(
        args["format"],
        None if frames_range is None else (frames_range[0], frames_range[1]),
        None if vaddr is None else (vaddr[0], vaddr[1]),
        args["cr3"],
    )
    try:
        return _write(channel, request, Path(args["directory"]), args)
    except OSError as error:
        raise TargetError.from_oserror(error, "can't write the guest's memory") from error


def _write(
    channel: Channel, request: Request, directory: Path, args: dict[str, Any]
) -> dict[str, Any]:
    frames = Frames(directory, args["image_fd"])
    try:
        vcpus = read_vcpus(directory)
        width = guest_width(directory, vcpus)
        output = SparseFile(
            Path(args["output"]), lambda copied: channel.progress({"bytes": copied})
        )
        try:
            guest = Guest(directory, request, frames, vcpus, width, output)
            size = _WRITERS[request.format](guest)
            output.finish(size)
            return {"size": size, "copied": output.copied}
        finally:
            output.close()
    finally:
        frames.close()
