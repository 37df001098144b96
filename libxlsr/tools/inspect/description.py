"""All that there is to say about one image, as one object for JSON."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.formats.page_types import (
    PAGE_TYPE_NAMES,
    XEN_DOMCTL_PFINFO_BROKEN,
    XEN_DOMCTL_PFINFO_XTAB,
)
from libxlsr.libxc.frame_map import NAMED, TYPE_MASK
from libxlsr.tools.inspect.collector import Collector
from libxlsr.tools.inspect.guest_state import guest_state
from libxlsr.tools.inspect.memory_map import memory_map
from libxlsr.tools.inspect.state_pieces import state_pieces
from libxlsr.tools.verify.memory_checks import MemoryChecks
from libxlsr.tools.verify.verifier import Verified

RANGES_MAX = 1 << 12
_RUN = re.compile(rb"(.)\1*", re.DOTALL)
_ABSENT = (XEN_DOMCTL_PFINFO_XTAB, XEN_DOMCTL_PFINFO_BROKEN)


def describe(contents: Collector, verified: Verified) -> dict[str, Any]:
    """The description of the image that ``contents`` was collected from."""
    state = guest_state(state_pieces(contents))
    return {
        "image": {
            "kind": verified.kind,
            "compression": verified.compression,
            "bytes": verified.size,
            "guest": verified.guest,
            "name": verified.name,
            "xen_version": verified.xen_version,
            "good": verified.good,
            "read": "full" if verified.full else "structural",
        },
        "headers": _headers(contents),
        "config": None if contents.config is None else contents.config.json,
        "records": [
            {
                "layer": place.layer,
                "number": place.number,
                "type": place.type,
                "name": place.name,
                "offset": place.offset,
                "length": place.length,
            }
            for place in contents.places
        ],
        "record_counts": [
            {
                "layer": layer,
                "name": name,
                "number": number,
                "bytes": contents.record_bytes[layer, name],
            }
            for (layer, name), number in contents.record_counts.items()
        ],
        "memory": None if contents.memory is None else _memory(contents, contents.memory),
        "checkpoints": contents.checkpoints,
        "state": state,
        "findings": [
            {**finding._asdict(), "severity": finding.severity.value}
            for finding in verified.findings
        ],
        "left_out": [*contents.left_out, *_left_undecoded(state)],
    }


def _left_undecoded(state: dict[str, Any]) -> Iterator[str]:
    emulator = state.get("emulator", {})
    size = emulator.get("description_bytes", 0)
    if size and emulator["description"] is None:
        yield f"the device model's description of itself, of {size} bytes"


def _headers(contents: Collector) -> dict[str, Any]:
    return {
        name: None if header is None else header._asdict()
        for name, header in (
            ("xl", contents.xl),
            ("libxl", contents.libxl),
            ("libxc_image", contents.image),
            ("libxc_domain", None if contents.libxc is None else contents.libxc.domain),
        )
    }


def _memory(contents: Collector, memory: MemoryChecks) -> dict[str, Any]:
    types = memory.types()
    p2m_covered = 0 if contents.libxc is None else contents.libxc.p2m.covered
    existing = sum(number for name, number in types.items() if name not in ("XTAB", "BROKEN"))
    ranges = list(islice(frame_ranges(memory), RANGES_MAX))
    return {
        "frames": types,
        "existing": existing,
        "bytes": existing * PAGE_SIZE,
        "highest_frame": max(memory.frames.end - 1, 0),
        "p2m_covered": p2m_covered,
        "sent_again": memory.sent_again,
        "map": memory_map(memory.frames, max(memory.frames.end, p2m_covered)),
        "ranges": [
            {"first": first, "frames": number, "type": name} for first, number, name in ranges
        ],
        "ranges_complete": len(ranges) < RANGES_MAX,
        "rounds": [dataclasses.asdict(one) for one in contents.rounds],
    }


def frame_ranges(memory: MemoryChecks) -> Iterator[tuple[int, int, str]]:
    """``(first frame, number, type)`` of each range of frames that exist with one type."""
    begin = length = 0
    current = None
    for first, chunk in memory.frames.chunks():
        position = first
        for match in _RUN.finditer(chunk):
            byte, number = match[1][0], match.end() - match.start()
            page_type = byte & TYPE_MASK
            kind = page_type if byte & NAMED and page_type not in _ABSENT else None
            if kind is not None and kind == current and position == begin + length:
                length += number
            else:
                if current is not None:
                    yield begin, length, PAGE_TYPE_NAMES[current]
                begin, length, current = position, number, kind
            position += number
    if current is not None:
        yield begin, length, PAGE_TYPE_NAMES[current]
