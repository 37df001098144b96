"""The program in a conversion's helper: writes the output from an index.

Arguments: ``directory``, ``image_fd``, ``output`` (a path that must not exist), ``codec`` (of the
output, or null), ``compact``, ``image_kind`` (of `RestoreResult`), ``image_start`` and
``image_end``: where the image lies in its file. Without ``compact`` those bytes are written as they
are, unless they are a legacy image's. The result: ``size`` of the file,
``frames`` and ``records`` in a compact image, both 0 in any other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from libxlsr.errors import TargetError
from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.helper.child import Channel
from libxlsr.tools.convert import compact
from libxlsr.tools.convert.packing import copy, packed_file
from libxlsr.tools.extract.frames import Frames


def run(channel: Channel) -> dict[str, Any]:
    """Write the file; raises what went wrong."""
    args = channel.receive_work()
    output = Path(args["output"])
    image_fd, directory = args["image_fd"], Path(args["directory"])
    result = {"frames": 0, "records": 0}
    try:
        with packed_file(output, args["codec"]) as writer:
            if not args["compact"] and args["image_kind"] != "legacy":
                start = args["image_start"]
                copy(image_fd, start, args["image_end"] - start, writer)
            else:
                frames = Frames(directory, image_fd)
                try:
                    result = compact.write(
                        directory,
                        frames,
                        writer,
                        lambda count: channel.progress({"bytes": count * PAGE_SIZE}),
                    )
                finally:
                    frames.close()
    except EOFError as error:
        raise TargetError(f"can't read the image: {error}") from error
    except OSError as error:
        raise TargetError.from_oserror(error, "can't write the image") from error
    return {**result, "size": output.stat().st_size}
