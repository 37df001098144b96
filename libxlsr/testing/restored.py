"""What an offline restore left, for comparing two of them."""

from __future__ import annotations

import json
from pathlib import Path

from libxlsr.restoring.image import layout


def restored_state(directory: Path) -> dict[str, bytes]:
    """Every file of an offline restore by its name; of the manifest only what it says of the guest.

    The records that it took to bring the guest there may differ.
    """
    state = {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    manifest = json.loads(state[layout.MANIFEST])
    for member in ("records", "frames_that_failed_verification"):
        del manifest[member]
    del manifest["libxc"]["checkpoints"]
    state[layout.MANIFEST] = json.dumps(manifest, sort_keys=True).encode()
    return state
