"""What a target is: the protocol between a restore and the place where the guest is rebuilt.

The rules that every target keeps:

* One call at a time. Each of ``prepare``, ``restore_libxc``, ``emulator_xenstore_data``,
  ``emulator_context``, ``finish`` and ``rollback`` is given a *done* callback, and calls it exactly
  once, from the event loop, never from inside the call itself. It does not raise; what is raised
  nevertheless counts as the call's error.
* ``abort(reason)`` makes the call in flight stop soon; its *done* then comes with an error. With no
  call in flight it does nothing.
* After any error the restore calls ``rollback``, and nothing else. It undoes everything, whatever
  had been done by then, and cannot fail: what could not be undone is logged and kept in the
  error's ``later`` list.
* ``finish`` makes the result visible in one step; after its success nothing is rolled back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Callable, Optional, Protocol

from libxlsr.errors import LibxlsrError
from libxlsr.events.chain import Done
from libxlsr.formats import libxl, xl
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.restoring.timeouts import Timeouts
from libxlsr.stream.libxc_stream import LibxcStream


@dataclass(frozen=True)
class ImageDescription:
    """What is known of the image before its libxc part: what a target prepares itself with."""

    config: xl.Config | None
    """The domain's configuration from the xl header; None in a bare libxl or libxc stream."""

    stream_header: libxl.Header | None
    """The libxl header; None in a bare libxc stream."""


@dataclass(frozen=True)
class LibxcOutcome:
    """What came of the libxc part."""

    consumed: int | None
    """Bytes read from the fd since the start or the last checkpoint; None where only libxenguest
    knows (on a pipe)."""

    guest_kind: str | None
    """From the domain header: "pv", or "hvm" for HVM and PVH guests; None if not known."""

    failover: LibxlsrError | None = None
    """Set when a checkpointed stream broke off and the guest is as at its last checkpoint."""


@dataclass(frozen=True)
class Restored:
    """What a restore brought: where the guest is now and what it was made from."""

    target: str
    """Which kind: "image" or "xen"."""

    where: str
    """The output directory, or "domain N"."""

    domid: int | None = None
    name: str | None = None
    domain_type: str | None = None
    memory_kib: int | None = None
    vcpus: int | None = None
    xen_version: str | None = None
    """The Xen that saved an offline guest, or that a domain runs on now."""

    pages: Mapping[str, int] = field(default_factory=dict)
    """Frames by their last page type; empty where libxenguest does not tell."""

    records: Mapping[str, int] = field(default_factory=dict)
    """libxc records by name; empty where libxenguest does not tell."""

    notes: tuple[str, ...] = ()
    """Sentences for a person: a failover, frames that differ in a verify pass, …"""


LibxcDone = Callable[[Optional[LibxcOutcome], Optional[LibxlsrError]], None]
CheckpointDone = Callable[[CheckpointReply, int], None]
FinishDone = Callable[[Optional[Restored], Optional[LibxlsrError]], None]


class TargetHooks(Protocol):
    """What a target may ask of the restore that runs it."""

    @property
    def timeouts(self) -> Timeouts:
        """How long to wait for whom; the target keeps to those that concern what it starts."""

    def progress(self, counters: Mapping[str, int]) -> None:
        """Counters that grew: "bytes" (read from the fd), "frames", "records"."""

    def log(self, level: int, text: str) -> None:
        """A line for the restore's log; ``level`` is one of `logging`'s."""

    def checkpoint(self, consumed: int, done: CheckpointDone) -> None:
        """libxc met a CHECKPOINT record: read the libxl records of this checkpoint from the fd.

        ``consumed`` counts the bytes of the libxc stream read since the last such call (or its
        start). ``done(reply, offset)`` is called exactly once, when CHECKPOINT_END has been
        processed; libxc's next byte is at ``offset`` of the stream.
        """


class Target(Protocol):
    """One restore's place to rebuild the guest in. See this module's rules."""

    name: str
    """Which kind: "image" or "xen"."""

    def prepare(self, image: ImageDescription, hooks: TargetHooks, done: Done) -> None:
        """Make room: a staging directory, or a new domain."""

    def restore_libxc(self, stream: LibxcStream, done: LibxcDone) -> None:
        """Read the libxc stream, up to and including its END record, not a byte more."""

    def emulator_xenstore_data(self, data: libxl.EmulatorXenstoreData, done: Done) -> None:
        """Take the device model's xenstore keys."""

    def emulator_context(self, context: libxl.EmulatorContext, done: Done) -> None:
        """Take the device model's state blob."""

    def finish(self, done: FinishDone) -> None:
        """The stream has ended well: make the guest whole."""

    def rollback(self, done: Done) -> None:
        """Undo everything."""

    def abort(self, reason: LibxlsrError) -> None:
        """Stop the call in flight soon."""
