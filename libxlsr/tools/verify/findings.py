"""Every finding that verify can make: its id, how bad it is, and what it means.

docs/verify.md's table is made from this one (``python -m libxlsr.tools.verify.findings``). An
*error* means that a restore refuses the image or that the guest would not be the one that was
saved; a *warning*, that no known sender writes it so; a *note* is worth knowing and no fault.
"""

from __future__ import annotations

import enum
import re
from collections import Counter
from typing import NamedTuple

from libxlsr.errors import StreamError


class Severity(enum.Enum):
    """How bad a finding is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Rule(NamedTuple):
    """What a finding's id stands for."""

    severity: Severity
    meaning: str


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE

RULES: dict[str, Rule] = {
    # The image as a whole.
    "unrecognised": Rule(_E, "The first bytes are of no kind of image that is known."),
    "legacy-image": Rule(
        _N,
        "Xen 4.5 or older wrote it, in the format before migration v2. It is converted on the way, "
        "as by a restore; findings but legacy-damaged and truncated have their places in what it "
        "becomes, which libxlsr convert writes.",
    ),
    "legacy-damaged": Rule(
        _E,
        "The image of Xen 4.5 or older can't be converted; the finding has the place in it.",
    ),
    "wrong-format": Rule(_E, "It is an image, but not of the kind that --format asks for."),
    "compression": Rule(_E, "The compressed data is damaged or cut off."),
    "truncated": Rule(
        _E,
        "The bytes end before the image does. xl restore of Xen 4.17 takes some of these for "
        "whole and starts a guest with parts missing.",
    ),
    "trailing-data": Rule(_E, "Bytes follow END: two images in one file, or a damaged length."),
    "ends-at-checkpoint": Rule(
        _W,
        "A checkpointed (Remus) stream breaks off after a whole checkpoint, as it does when the "
        "sender dies. A restore brings the guest back as of that checkpoint.",
    ),
    # xl's part.
    "xl-header": Rule(_E, "A field of xl's header has a value that no xl writes."),
    "xl-config": Rule(
        _E,
        "The domain's configuration is cut off, is no JSON object, or lacks or misstates what a "
        "restore needs: type, name, memory, vCPUs.",
    ),
    "xl-optional-data-tail": Rule(
        _N, "Bytes follow the configuration in the optional data; xl skips them."
    ),
    "no-config": Rule(
        _N,
        "There is no xl header; what depends on the domain's configuration was not checked.",
    ),
    # libxl's stream.
    "libxl-header": Rule(_E, "A field of libxl's header has a wrong or reserved value."),
    "libxl-record-header": Rule(_E, "A libxl record has an unknown type or an impossible length."),
    "libxl-order": Rule(_E, "A libxl record stands where it can't stand, or comes twice."),
    "libxl-padding": Rule(_E, "The padding after a libxl record is not zero."),
    "libxl-optional-record": Rule(
        _W,
        "An optional libxl record of an unknown type. The specification says to skip it, and "
        "libxlsr does; xl restore of every Xen so far refuses the stream.",
    ),
    "emulator-xenstore-data": Rule(
        _E, "EMULATOR_XENSTORE_DATA does not hold pairs of a key below physmap/ and a value."
    ),
    "emulator-context": Rule(_E, "EMULATOR_CONTEXT is too short, or names an unknown emulator."),
    "emulator-unexpected": Rule(
        _E, "A libxl record that such a guest does not have: a PV or PVH guest has no device model."
    ),
    "emulator-missing": Rule(
        _E, "An HVM guest without EMULATOR_CONTEXT: its device model can't be started."
    ),
    "emulator-empty": Rule(
        _W, "The device model's state does not begin as QEMU's does, with the four bytes QEVM."
    ),
    "checkpoint-state": Rule(_E, "COLO's CHECKPOINT_STATE has a wrong length or control id."),
    "checkpoint-partial": Rule(
        _W,
        "A checkpoint lacks records that each checkpoint of a real sender has; what the "
        "checkpoint before it said stays in force.",
    ),
    # libxc's image.
    "libxc-image-header": Rule(_E, "A field of libxc's image header is wrong or reserved."),
    "libxc-domain-header": Rule(_E, "A field of libxc's domain header is wrong or reserved."),
    "guest-type": Rule(
        _E, "The configuration and libxc's domain header say different types of guest."
    ),
    "legacy-converted": Rule(
        _N,
        "convert-legacy-stream made this of an older image: frames that did not exist are not "
        "listed, and TSC and HVM parameters may be missing.",
    ),
    "libxc-record-header": Rule(_E, "A libxc record has an unknown type or an impossible length."),
    "record-too-large": Rule(_E, "A libxc record is larger than any that Xen writes."),
    "libxc-order": Rule(
        _E, "A libxc record stands where it can't stand, comes twice, or is another guest type's."
    ),
    "libxc-unusual-order": Rule(
        _W,
        "The libxc records stand in an order that libxenguest takes and that no Xen writes. "
        "(Where the specification differs from real senders, the senders are right: all write "
        "HVM_CONTEXT before HVM_PARAMS.)",
    ),
    "libxc-padding": Rule(_E, "The padding after a libxc record is not zero."),
    "libxc-optional-record": Rule(
        _N, "An optional libxc record of an unknown type; every reader skips it."
    ),
    "duplicate-record": Rule(
        _W, "A record that comes once in each state of the domain comes again; the last one counts."
    ),
    "domain-incomplete": Rule(
        _E, "The domain's state ends without a record that a guest of its type can't start without."
    ),
    "policy-missing": Rule(
        _N,
        "A version 3 image without CPUID or MSR policy: the restoring host chooses, as for images "
        "of Xen 4.13 and older.",
    ),
    "verify-pass": Rule(
        _N, "The sender sent all of memory twice, to find its own mistakes (xl's --debug)."
    ),
    # Guest memory.
    "page-data": Rule(
        _E,
        "PAGE_DATA's count, an entry's type, reserved bits or frame number is wrong, or its "
        "length is not what its entries take.",
    ),
    "duplicate-frame": Rule(_W, "A PAGE_DATA record names a frame more than once."),
    "frame-beyond-p2m": Rule(
        _E, "A PV guest's frame lies beyond what X86_PV_P2M_FRAMES covers; libxenguest refuses it."
    ),
    "frames-missing": Rule(
        _E,
        "Frames that PAGE_DATA never named, below others that it did or within the P2M. A sender "
        "names every frame, if only to say that it does not exist: a record was lost.",
    ),
    "frames-without-data": Rule(
        _N,
        "Frames that exist and were never sent with contents (XALLOC): a restored guest finds "
        "zeros in them.",
    ),
    "frames-broken": Rule(_N, "Frames whose memory was broken on the sender's host (BROKEN)."),
    "frames-untracked": Rule(
        _W,
        "The image names frames in so many places that not all are kept track of; missing ones "
        "among them go unseen. No guest of less than 256 GiB can do that.",
    ),
    "page-type": Rule(_W, "An HVM guest's frame has the type of a PV guest's page table."),
    "pte-beyond-p2m": Rule(
        _E,
        "An entry of a PV guest's page table points beyond its P2M, for which libxenguest aborts. "
        "Found with --full only.",
    ),
    "verify-mismatch": Rule(
        _W, "Frames that differ between the two passes of a sender's verification. With --digest."
    ),
    # PV guests.
    "pv-info": Rule(_E, "X86_PV_INFO says neither a 32-bit nor a 64-bit guest."),
    "p2m-frames": Rule(
        _E, "X86_PV_P2M_FRAMES has a wrong range or length, or leaves a gap in the P2M."
    ),
    "p2m-frame-unusable": Rule(
        _E, "A frame that holds the P2M itself is not an ordinary frame with contents."
    ),
    "vcpu": Rule(_E, "A PV vCPU's record has a wrong length or an impossible vCPU."),
    "vcpu-unknown": Rule(
        _E, "State of a vCPU that the configuration does not give to the guest (max_vcpus)."
    ),
    "vcpu-without-basic": Rule(
        _W, "Records of a vCPU without its X86_PV_VCPU_BASIC: it won't come up."
    ),
    "vcpu-without-extended": Rule(
        _W, "A vCPU without its X86_PV_VCPU_EXTENDED, which every Xen writes."
    ),
    "vcpu-missing": Rule(
        _W, "A PV guest's vCPU that the configuration says was online has no state in the image."
    ),
    "shared-info": Rule(_E, "SHARED_INFO is not one page."),
    "empty-record": Rule(
        _N, "A record without content, as Xen 4.6 to 4.8 wrote them; it has no effect."
    ),
    # HVM and PVH guests.
    "tsc-info": Rule(_E, "X86_TSC_INFO has a wrong length, mode or reserved field."),
    "hvm-context": Rule(
        _E,
        "HVM_CONTEXT does not begin with Xen's HEADER, its entries don't end with END, or one of "
        "them is shorter than any Xen writes it.",
    ),
    "hvm-context-entry": Rule(
        _W,
        "HVM_CONTEXT has an entry twice, or one of a type or a length that Xen up to 4.22 does not "
        "know and refuses.",
    ),
    "hvm-context-vcpu": Rule(_W, "HVM_CONTEXT has no CPU entry: the guest has no processor."),
    "hvm-context-missing": Rule(
        _W,
        "HVM_CONTEXT lacks an entry that Xen writes for each vCPU, its local APIC or MTRRs for "
        "example, or for each HVM guest, as its interrupt controllers and clock; the restored one "
        "has them as a new guest has.",
    ),
    "hvm-vcpu-down": Rule(
        _N,
        "HVM_CONTEXT has no CPU entry for a vCPU that the configuration says was online: the guest "
        "never started it or has switched it off, and it stays down.",
    ),
    "hvm-params": Rule(_E, "HVM_PARAMS has a wrong length, a parameter twice, or too many."),
    "hvm-param-missing": Rule(
        _W, "HVM_PARAMS lacks a parameter without which the toolstack can't reach the guest."
    ),
    "special-frame-missing": Rule(
        _W,
        "A frame that HVM_PARAMS names (xenstore, console, I/O requests) has no memory in the "
        "image; Xen can't clear it and the toolstack can't map it.",
    ),
    "cpu-policy": Rule(_E, "A CPUID or MSR policy is empty, cut off, or has reserved flags."),
}

SHOWN_MAX = 10
"""Findings of one id that are kept; of the others, only the number."""


class Finding(NamedTuple):
    """One thing that was found. ``offset`` counts in plain bytes, None where it can't be known."""

    id: str
    message: str
    offset: int | None = None
    record: str | None = None
    """How messages call the record, or the header."""
    layer: str | None = None
    """"xl", "libxl" or "libxc"."""
    number: int | None = None
    """The record's number in its layer, from 1."""

    @property
    def severity(self) -> Severity:
        return RULES[self.id].severity

    @property
    def meaning(self) -> str:
        """What the finding means, as documented."""
        return RULES[self.id].meaning

    def __str__(self) -> str:
        return f"{self.severity.value}: {where_and_what(self)} [{self.id}]"


def where_and_what(finding: Finding) -> str:
    """The finding without its severity and id."""
    where = [] if finding.offset is None else [f"at offset {finding.offset:#x}"]
    if finding.record is not None:
        where.append(finding.record if where else f"in {finding.record}")
    return f"{', '.join(where)}: {finding.message}" if where else finding.message


class Findings:
    """Collects findings in their order, with a bound on what a hostile image can make of it."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self._counts: Counter[str] = Counter()

    def add(self, finding: Finding) -> None:
        """Take a finding; beyond SHOWN_MAX of its id only count it."""
        self._counts[finding.id] += 1
        if self._counts[finding.id] <= SHOWN_MAX:
            self.kept.append(finding)

    def count(self, severity: Severity) -> int:
        """How many findings of a severity there were, those that were not kept included."""
        return sum(n for name, n in self._counts.items() if RULES[name].severity is severity)

    @property
    def dropped(self) -> dict[str, int]:
        """How many findings of an id were not kept."""
        return {
            name: number - SHOWN_MAX for name, number in self._counts.items() if number > SHOWN_MAX
        }


def message_of(error: StreamError) -> str:
    """What an error says is wrong, without where."""
    text = error.message
    return text if error.expected is None else f"{text}, expected {error.expected}"


def markdown() -> str:
    """The table of docs/verify.md."""
    rows = ["| id | severity | what it means |", "|---|---|---|"]
    for name, rule in RULES.items():
        meaning = re.sub(r"\b(--[a-z]+|[A-Z0-9]+_[A-Z0-9_]+)", r"`\1`", rule.meaning)
        rows.append(f"| `{name}` | {rule.severity.value} | {meaning} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
