"""``libxlsr inspect``."""

from __future__ import annotations

import argparse
from typing import Any

from libxlsr.cli.arguments import image_source, output_file
from libxlsr.cli.interrupts import NotRaised
from libxlsr.cli.report import Report
from libxlsr.tools.inspect.guest_state import flattened
from libxlsr.tools.inspect.operation import inspect as inspect_image
from libxlsr.tools.inspect.operation import write_page
from libxlsr.tools.inspect.qemu_description import described_devices
from libxlsr.tools.verify.findings import Finding, where_and_what

ROWS_MAX = 20
LIST_MAX = 12
NAME_MAX = 48
"""Columns for names: an image can have one name that is very long, and very many short ones."""
_FIRST = ("rip", "rsp", "cr0", "cr3", "cr4")
"""Registers that stand for a vCPU."""


def add_parser(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "inspect",
        help="show what is in an image",
        description="Shows what is in an image: configuration, headers, records, memory, the "
        "iterations of a live migration, the state of processors and devices. --json has all of "
        "it. A damaged image is shown as far as it can be read.",
        epilog="exit codes: 0 no errors; 1 the image has errors, or is none; 2 wrong usage; 3 a "
        "file could not be read or written; 4 aborted",
    )
    parser.add_argument("image", metavar="FILE", help="the image; - reads standard input")
    parser.add_argument(
        "--full", action="store_true", help="read every byte of a file, as verify does"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object with everything")
    parser.add_argument(
        "--html",
        type=output_file,
        metavar="PAGE",
        help="write it as an HTML page, which needs nothing beside it: a map of memory, the "
        "records, the frames sent in each round, the state",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="show all registers, rounds, lists and keys",
    )
    parser.set_defaults(command=inspect)


def inspect(options: argparse.Namespace, report: Report) -> int:
    """Run the command; raises errors of libxlsr."""
    description = inspect_image(image_source(options.image), full=options.full)
    if options.html is not None:
        with NotRaised():  # the page is there or is not, and nothing beside it
            write_page(description, options.html)
    if report.json:
        report.event("inspected", **description)
    elif options.html is not None:
        report.line(f"{options.image}: described in {options.html}")
    else:
        for line in _lines(description, everything=options.verbose > 0):
            report.line(line)
    return 0 if description["image"]["good"] else 1


def _lines(description: dict[str, Any], *, everything: bool) -> list[str]:
    return [
        *_image(description),
        *_memory(description["memory"], everything),
        *_records(description["record_counts"]),
        *_state(description["state"], everything),
        *_findings(description),
    ]


def _table(title: str, rows: list[tuple[str, str]]) -> list[str]:
    if not rows:
        return []
    width = min(max(len(name) for name, _ in rows), NAME_MAX)
    return [title, *(f"  {name:<{width}}  {value}" for name, value in rows), ""]


def _some(rows: list[tuple[str, str]], everything: bool) -> list[tuple[str, str]]:
    """The rows; without ``everything`` the first ROWS_MAX, and how many more there are."""
    if everything or len(rows) <= ROWS_MAX:
        return rows
    return [*rows[:ROWS_MAX], ("...", f"{len(rows) - ROWS_MAX} more")]


def _image(description: dict[str, Any]) -> list[str]:
    image, headers = description["image"], description["headers"]
    rows = [
        ("kind", image["kind"] + (f", {image['compression']}" if image["compression"] else "")),
        ("size", f"{image['bytes']} bytes"),
        ("guest", f"{image['name'] or '(no name)'}, {image['guest']}"),
    ]
    if headers["libxc_image"] is not None:
        rows.append(("libxc version", str(headers["libxc_image"]["version"])))
    if headers["libxc_domain"] is not None:
        major = headers["libxc_domain"]["xen_major"]
        old = "Xen 4.5 or older" if image["kind"] == "legacy" else "convert-legacy-stream"
        rows.append(("saved by", f"Xen {image['xen_version']}" if major else old))
    config = description["config"]
    info = config.get("b_info") if isinstance(config, dict) else None
    if isinstance(info, dict):
        wanted = ("max_vcpus", "max_memkb", "target_memkb", "video_memkb")
        rows += [(key, str(info[key])) for key in wanted if key in info]
    if description["checkpoints"]:
        rows.append(("checkpoints", str(description["checkpoints"])))
    return _table("Image", rows)


def _memory(memory: dict[str, Any] | None, everything: bool) -> list[str]:
    if memory is None:
        return []
    rows = [(name, f"{number} frames") for name, number in memory["frames"].items()]
    rows.append(("existing", f"{memory['existing']} frames, {memory['bytes'] >> 10} KiB"))
    rows.append(("sent again", f"{memory['sent_again']} frames"))
    ranges = [
        (
            f"{one['first']:#x}-{one['first'] + one['frames'] - 1:#x}",
            f"{one['frames']} {one['type']}",
        )
        for one in memory["ranges"]
    ]
    rounds = memory["rounds"]
    lines = _table("Memory", rows) + _table("Frames", _some(ranges, everything))
    if len(rounds) > 1:
        lines += _table("Rounds", _some(_rounds(rounds), everything))
    return lines


def _rounds(rounds: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [
        (
            f"{number}",
            f"{one['frames']} frames, {one['pages']} with contents, libxc records "
            f"{one['first_record']}-{one['last_record']}"
            + (f", checkpoint {one['checkpoint']}" if one["checkpoint"] else ""),
        )
        for number, one in enumerate(rounds)
    ]


def _records(counts: list[dict[str, Any]]) -> list[str]:
    rows = [
        (f"{kind['layer']} {kind['name']}", f"{kind['number']}, {kind['bytes']} bytes")
        for kind in counts
    ]
    return _table("Records", rows)


def _state(state: dict[str, Any], everything: bool) -> list[str]:
    lines: list[str] = []
    for kind, value in state.items():
        if kind == "cpuid":
            lines += _cpuid(value, everything)
        elif kind == "emulator":
            lines += _emulator(value, everything)
        elif kind == "emulator_keys":
            lines += _table(kind, _some(_rows(value, everything), everything))
        elif kind in ("hvm_context", "vcpus") and not everything:
            lines += _table(kind, [(name, _short(inner)) for name, inner in value.items()])
        else:
            lines += _table(kind, _rows(value, everything))
    return lines


def _short(value: Any) -> str:
    """A device or vCPU on one line: what a person looks for first."""
    leaves = dict(flattened(value))
    wanted = [path for path in leaves if path and path[-1] in _FIRST]
    if wanted:
        return " ".join(f"{path[-1]}={leaves[path]}" for path in wanted)
    text = " ".join(f"{path}={leaf}" for path, leaf in _rows(value, False))
    return text if len(text) <= 90 else f"{text[:90]}..."


def _cpuid(value: dict[str, Any], everything: bool) -> list[str]:
    rows = [("features", " ".join(value["features"]))]
    if everything:
        rows += [
            (leaf, " ".join(f"{name}={register}" for name, register in registers.items()))
            for leaf, registers in value["leaves"].items()
        ]
    return _table("cpuid", rows)


def _emulator(value: dict[str, Any], everything: bool) -> list[str]:
    rows = [("emulator", value["emulator"]), ("state", f"{value['bytes']} bytes")]
    description = None
    if "version" in value:  # else the state is not QEMU's
        description = value["description"]
        rows += [
            ("version", str(value["version"])),
            ("machine", "(not named)" if value["machine"] is None else value["machine"]),
            ("description", _extent(description, value["description_bytes"])),
        ]
    rows += [
        (section["name"], f"version {section['version']}, {section['length']} bytes")
        for section in value.get("sections", [])
    ]
    lines = _table("device model", rows)
    if everything and description is not None:
        lines += _table("device model's description", _described(description))
    return lines


def _extent(description: dict[str, Any] | None, size: int) -> str:
    if not size:
        return "none"
    if description is None:
        return f"{size} bytes, too large to be read"
    return f"{size} bytes, of {len(described_devices(description))} devices"


def _described(description: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (
            device.name,
            f"instance {device.instance_id}, version {device.version}, {device.fields} fields, "
            f"{device.size} bytes"
            + (f", subsections {' '.join(device.subsections)}" if device.subsections else ""),
        )
        for device in described_devices(description)
    ]


def _rows(value: Any, everything: bool) -> list[tuple[str, str]]:
    return [(".".join(path), _text(leaf, everything)) for path, leaf in flattened(value)]


def _text(leaf: Any, everything: bool) -> str:
    if isinstance(leaf, list):
        shown = leaf if everything else leaf[:LIST_MAX]
        return " ".join(map(str, shown)) + (" ..." if len(shown) < len(leaf) else "")
    return str(leaf)


def _findings(description: dict[str, Any]) -> list[str]:
    rows = []
    for members in description["findings"]:
        finding = Finding(**{name: members[name] for name in Finding._fields})
        rows.append((finding.id, f"{finding.severity.value}: {where_and_what(finding)}"))
    return _table("Findings", rows) + _table(
        "Left out", [(str(n), what) for n, what in enumerate(description["left_out"], 1)]
    )
