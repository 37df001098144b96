"""One restore after the other: a fifth of the images damaged, a fifth of the restores aborted."""

from __future__ import annotations

import resource
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from libxlsr.errors import Aborted, StreamError
from libxlsr.events import Ao, Context
from libxlsr.restoring.image.target import ImageTarget
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import RestoreResult
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.leaks import Holdings
from libxlsr.testing.stepping import run_until

RSS_GROWTH_MAX = 4 << 20
"""Bytes by which the least resident memory of the laps' second half may exceed that of the first:
what is freed is given back now and then only."""


@dataclass(frozen=True)
class Lap:
    """What this process held when so many restores were done."""

    restores: int
    outcomes: Counter[str]
    held: Holdings
    resident: int
    """Bytes that are in memory."""


def soak(
    directory: Path, number: int, laps: int, kind: type[ImageTarget] = ImageTarget
) -> Iterator[Lap]:
    """``number`` restores below ``directory``, on one context; what is held after each lap.

    The first lap is the warm-up. Aborts come after another number of the loop's rounds each time,
    so that they meet every stage of a restore.
    """
    ctx = Context()
    image = StreamBuilder("hvm", pages=4).build()
    good, bad = directory / "good", directory / "bad"
    good.write_bytes(image)
    output = directory / "guest"
    seen: Counter[str] = Counter()
    rounds = 0

    def restore(path: Path, abort_after: int | None) -> None:
        nonlocal rounds
        left = abort_after
        rounds = 0
        with open(path, "rb") as file:
            ao = restore_ao(
                ctx, file.fileno(), RestoreOptions(to_eof=True), target=kind(ctx, output)
            )

            def over() -> bool:
                nonlocal left, rounds
                rounds += 1
                if left is not None:
                    left -= 1
                    if left < 0:
                        ao.abort()
                        left = None
                return ao.done

            run_until(ctx, over)
        if ctx.registered():
            raise AssertionError(f"a restore left registered: {ctx.registered()}")
        seen[outcome(ao)] += 1
        if output.exists():
            shutil.rmtree(output)

    restore(good, None)
    seen.clear()
    stages = rounds
    for lap in range(laps):
        for turn in range(number * lap // laps, number * (lap + 1) // laps):
            if turn % 5 == 2:
                # Cut off at another place each time.
                bad.write_bytes(image[: 1 + turn * 7919 % (len(image) - 1)])
            restore(bad if turn % 5 == 2 else good, turn // 5 % stages if turn % 5 == 1 else None)
        yield Lap(
            number * (lap + 1) // laps, seen.copy(), Holdings.now(str(directory)), _resident()
        )


def growth(laps: Sequence[Lap]) -> list[str]:
    """What grew from the first lap to the last, one line each; nothing is how it should be."""
    first, last = laps[0], laps[-1]
    grown = [f"fd {fd}: {last.held.fds[fd]}" for fd in last.held.fds.keys() - first.held.fds.keys()]
    grown += [f"child {pid}" for pid in last.held.children.keys() - first.held.children.keys()]
    grown += [f"file {path}" for path in last.held.files - first.held.files]
    half = len(laps) // 2
    before, after = (min(lap.resident for lap in part) for part in (laps[:half], laps[half:]))
    if after - before > RSS_GROWTH_MAX:
        grown.append(f"resident memory: from {before} to {after} bytes")
    return grown


def outcome(ao: Ao[RestoreResult]) -> str:
    """How an ao that is done ended: "done", "aborted" or "damaged"."""
    try:
        ao.result()
    except Aborted:
        return "aborted"
    except StreamError:
        return "damaged"
    return "done"


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
