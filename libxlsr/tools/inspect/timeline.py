"""The records of an image as a row of stretches, each of records of one type.

Record numbers go up by one within a stretch: what comes between two of a layer's records ends it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from libxlsr.formats.framing import padded_length
from libxlsr.formats.libxc import RECORD_HEADER_SIZE

STRETCHES_MAX = 1 << 12


def timeline(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """``stretches`` of the description's ``records``, and how many records are in none."""
    stretches: list[dict[str, Any]] = []
    left_out = 0
    for record in records:
        kind = record["layer"], record["type"]
        end = record["offset"] + RECORD_HEADER_SIZE + padded_length(record["length"])
        last = stretches[-1] if stretches else None
        if left_out:
            left_out += 1
        elif last is not None and (last["layer"], last["type"]) == kind:
            last.update(last=record["number"], end=end)
            last["bytes"] += record["length"]
        elif len(stretches) == STRETCHES_MAX:
            left_out = 1
        else:
            stretches.append(
                {
                    "layer": record["layer"],
                    "type": record["type"],
                    "name": record["name"],
                    "first": record["number"],
                    "last": record["number"],
                    "offset": record["offset"],
                    "end": end,
                    "bytes": record["length"],
                }
            )
    return {"stretches": stretches, "left_out": left_out}
