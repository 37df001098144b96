"""What is explored: small streams, in every split into a few chunks, with all that may happen."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from libxlsr.formats import libxl, xl
from libxlsr.formats.framing import encode_record
from libxlsr.testing.builder import config_json

from .explore import Explored, explore
from .held_target import LIBXC_SIZE
from .restore_world import TRAILER, RestoreWorld, Scenario

_T = libxl.RecordType


_HEADER = libxl.Header().encode() + encode_record(_T.LIBXC_CONTEXT)
_LIBXC = b"L" * LIBXC_SIZE
_KEYS = encode_record(
    _T.EMULATOR_XENSTORE_DATA,
    libxl.EmulatorXenstoreData(2, 0, (("physmap/1/size", "2"),)).encode(),
)
_EMULATOR = encode_record(_T.EMULATOR_CONTEXT, libxl.EmulatorContext(2, 0, b"QEVM").encode())
_CHECKPOINT_END, _END = encode_record(_T.CHECKPOINT_END), encode_record(_T.END)
_OPTIONAL = encode_record(libxl.REC_TYPE_OPTIONAL | 1, b"skipped")


def _xl_stream() -> bytes:
    config = xl.OptionalData(xl.Config.from_json(config_json("hvm", 1))).encode()
    return xl.Header(optional_data_len=len(config)).encode() + config + STREAMS["emulator"]


STREAMS = {
    "plain": _HEADER + _LIBXC + _END,
    "emulator": _HEADER + _LIBXC + _KEYS + _OPTIONAL + _EMULATOR + _END,
    "checkpoints": _HEADER
    + (_LIBXC + _CHECKPOINT_END)
    + (_LIBXC + _EMULATOR + _CHECKPOINT_END)
    + (_LIBXC + _END),
    "libxc": b"\xff" * LIBXC_SIZE,
}
STREAMS["xl"] = _xl_stream()


@dataclass(frozen=True)
class Search:
    """One stream, and how it arrives: in ``chunks`` pieces at most, cut at multiples of ``step``
    bytes. The other members are `Scenario`'s."""

    stream: str
    chunks: int = 1
    step: int = 1
    aborts: int = 0
    timeouts: int = 0
    preempt: bool = False

    def __str__(self) -> str:
        pieces = f"{self.chunks} chunks, cut at multiples of {self.step}"
        happens = ["abort"] * self.aborts + ["deadline"] * self.timeouts
        return (
            f"{self.stream}: {pieces if self.chunks > 1 else 'whole'}"
            f"{''.join(f', {what}' for what in happens)}"
            f"{', the target at any moment' if self.preempt else ''}"
        )

    def run(self) -> Explored:
        """Explore every split of the stream."""
        explored = Explored()
        for chunks in self._splits():
            scenario = Scenario(
                chunks,
                checkpoints=2 if self.stream == "checkpoints" else 0,
                aborts=self.aborts,
                timeouts=self.timeouts,
                preempt=self.preempt,
            )
            explored += explore(lambda: RestoreWorld(scenario))  # noqa: B023 - called at once
        return explored

    def _splits(self) -> Iterator[tuple[bytes, ...]]:
        data = STREAMS[self.stream]
        places = range(self.step, len(data), self.step)
        for number in range(self.chunks):
            for cuts in itertools.combinations(places, number):
                bounds = [0, *cuts, len(data)]
                pieces = [data[start:end] for start, end in zip(bounds, bounds[1:])]
                yield (*pieces[:-1], pieces[-1] + TRAILER)


SEARCHES = (
    Search("plain", chunks=2, aborts=1),
    Search("plain", chunks=3, step=4),
    Search("plain", aborts=1, timeouts=1, preempt=True),
    Search("emulator", aborts=1, preempt=True),
    Search("emulator", chunks=2, step=4),
    Search("checkpoints", aborts=1, preempt=True),
    Search("checkpoints", chunks=2, step=4),
    Search("libxc", chunks=2, aborts=1, preempt=True),
    Search("xl", chunks=2, step=8),
)
"""For every test run."""

DEEP = (
    Search("plain", chunks=3, aborts=1),
    Search("libxc", chunks=2, aborts=1, timeouts=1, preempt=True),
    Search("emulator", chunks=2),
    Search("plain", chunks=2, step=8, aborts=1, timeouts=1, preempt=True),
    Search("emulator", chunks=3, step=8, aborts=1),
    Search("emulator", aborts=1, timeouts=1, preempt=True),
    Search("checkpoints", chunks=2, aborts=1),
    Search("checkpoints", chunks=3, step=8),
    Search("checkpoints", aborts=1, timeouts=1, preempt=True),
    Search("xl", chunks=2, aborts=1),
)
"""For a patient one."""
