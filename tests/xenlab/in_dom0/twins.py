"""What a restored domain looks like from dom0, to be compared with what xl makes of the same image.

What xenstore may differ in is in xenstore_differences.txt, with the reason.
"""

from __future__ import annotations

import fnmatch
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .dom0 import domid_of, listing, xenstore
from .guests import Guest, xl

DIFFERENCES = Path(__file__).with_name("xenstore_differences.txt")

# Ports, frames, ptys, processes and times: of these only that they are there is compared.
VOLATILE = (
    "/local/domain/N/store/port",
    "/local/domain/N/store/ring-ref",
    "/local/domain/N/console/port",
    "/local/domain/N/console/ring-ref",
    "/local/domain/N/console/tty",
    "/local/domain/N/serial/0/tty",
    "/local/domain/N/image/device-model-pid",
    "/vm/UUID/start_time",
    "/local/domain/N/device/*/*/*ring-ref*",
    "/local/domain/N/device/*/*/event-channel*",
    "/local/domain/N/device/*/*/page-ref",
    "/local/domain/0/backend/vbd/N/*/node",
    "/local/domain/0/backend/vbd/N/*/physical-device*",
)

# Of what is nothing but a number, these are the domain's.
IDS = ("domid", "frontend-id")


def allowed_differences() -> list[str]:
    """The patterns in the file: one a line, in front of its reason."""
    lines = DIFFERENCES.read_text().splitlines()
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]


@dataclass
class Twin:
    """What a restored domain looks like from dom0, ids taken out."""

    nodes: dict[str, str]
    """xenstore's nodes below the domain's own directories: path to value and permissions."""

    listed: Any
    """What xl list -l says of it."""

    def unlisted_differences(self, other: Twin) -> dict[str, dict[str, str | None]]:
        """The nodes in which another differs, but for the allowed ones."""
        paths = set(self.nodes) | set(other.nodes)
        return {
            path: {"xl": self.nodes.get(path), "libxlsr": other.nodes.get(path)}
            for path in sorted(paths)
            if self.nodes.get(path) != other.nodes.get(path)
            and not any(fnmatch.fnmatch(path, pattern) for pattern in allowed_differences())
        }


def look_at(guest: Guest) -> Twin:
    domid = domid_of(guest.name)
    (listed,) = json.loads(xl("list", "-l", str(domid)))
    uuid = listed["config"]["c_info"]["uuid"]
    below = {
        f"/local/domain/{domid}": "/local/domain/N",
        f"/vm/{uuid}": "/vm/UUID",
        f"/libxl/{domid}": "/libxl/N",
        f"/local/domain/0/device-model/{domid}": "/local/domain/0/device-model/N",
    }
    for kind in xenstore().directory("/local/domain/0/backend") or ():
        below[f"/local/domain/0/backend/{kind}/{domid}"] = f"/local/domain/0/backend/{kind}/N"
    nodes = {}
    for real, general in below.items():
        for path, rest in listing(real).items():
            path = general + path[len(real) :]
            # Values and permissions: the domain's id as a word of its own, or after a permission;
            # not as a part of a version or of a MAC address.
            rest = rest.replace(uuid, "UUID")
            alone = re.match(r'"\d+" ', rest)
            if alone is None or path.rpartition("/")[2] in IDS:
                # Nor of a name: a console's protocol is "vt100", a disk's is "x86_64-abi".
                rest = re.sub(rf"(?<![\w.:])([nrwb]?){domid}(?![\w.:])", r"\1N", rest)
            else:  # a state or a number that only happens to be the same
                end = alone.end()
                rest = rest[:end] + re.sub(rf"([nrwb]){domid}(?![0-9])", r"\1N", rest[end:])
            if any(fnmatch.fnmatch(path, pattern) for pattern in VOLATILE):
                rest = re.sub(r'^"[^"]+"', '"…"', rest)
            nodes[path] = rest
    # Two that could not be listed would be the same.
    assert nodes.keys() >= {"/local/domain/N/name", "/vm/UUID/uuid", "/libxl/N/type"}
    listed["domid"] = None
    return Twin(nodes, listed)
