"""What a restore says of itself while it runs, and at its end."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from libxlsr.errors import LibxlsrError
from libxlsr.restoring.target import Restored


class Phase(enum.Enum):
    """What a restore is busy with."""

    OPENING = "opening"
    QUEUED = "queued"
    """Waiting for a place among the restores whose helpers may run."""
    PREPARING = "preparing"
    MEMORY = "memory"
    """libxc's part: memory, vCPUs, everything that Xen knows of the guest."""
    RECORDS = "records"
    """libxl's records: the device model's."""
    WRITING = "writing"
    """A file is made from what was read: an extraction or a conversion."""
    FINISHING = "finishing"
    UNDOING = "undoing"


@dataclass(frozen=True)
class Progress:
    """How far a restore has come. Sizes are in bytes, times in seconds."""

    phase: Phase
    position: int
    """Bytes of the input that were read; of the compressed one where it is compressed."""
    total: int | None
    """The size of the input, where it has one."""
    frames: int
    """Frames with contents that were read; what the domain has got where libxenguest reads them."""
    records: int
    """Records that were read, libxl's and libxc's; of libxc's none where libxenguest reads them."""
    elapsed: float
    """Since the start."""
    queued: float = 0.0
    """What of that was spent in the queue."""

    @property
    def rate(self) -> float:
        """Bytes a second so far, the time in the queue left out."""
        busy = self.elapsed - self.queued
        return self.position / busy if busy > 0 else 0.0

    @property
    def time_left(self) -> float | None:
        """Seconds to go at this rate; None where that can't be said, as in the queue."""
        if self.phase is Phase.QUEUED or self.total is None or self.rate == 0:
            return None
        return max(0.0, (self.total - self.position) / self.rate)


@dataclass(frozen=True)
class RestoreResult:
    """What came of a restore that succeeded."""

    guest: Restored
    image_kind: str
    """"xl", "libxl", "libxc" or "legacy"."""
    compression: str | None
    stream_bytes: int | None
    """The length of the plain stream; None where libxenguest read it from a pipe."""
    libxl_records: int
    checkpoints: int
    failover: LibxlsrError | None
    """Why a checkpointed stream broke off; the guest is then as of its last checkpoint."""
    seconds: float
    phases: Mapping[Phase, float]
    """Seconds that each phase took."""

    def __str__(self) -> str:
        return f"{self.guest.where} was restored"
