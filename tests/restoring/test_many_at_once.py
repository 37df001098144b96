"""Many restores at once: all right, nothing is left."""

from __future__ import annotations

import os
import resource
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from libxlsr.events import Ao, Context
from libxlsr.restoring.helper_limit import HelperLimit
from libxlsr.restoring.image.target import ImageTarget
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import RestoreResult
from libxlsr.restoring.timeouts import Timeouts
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.in_process import InProcessImageTarget
from libxlsr.testing.leaks import children
from libxlsr.testing.stepping import run_until, run_until_idle

from ..soak.restores import outcome

IMAGE = StreamBuilder("hvm", pages=4).build()
LIBXL_START = IMAGE.index(b"LibxlFmt")

IDLE_STREAM_MAX = 40 * 1024
"""Bytes of Python objects that a stream may take while it waits for its sender. Measured: 5 KiB
before the first byte, 26 KiB inside the libxl stream, of which 14 are the machine."""


@contextmanager
def pipes(number: int) -> Iterator[list[tuple[int, int]]]:
    """So many pipes; room is made for them among this process's fds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))
    made = [os.pipe() for _ in range(number)]
    try:
        yield made
    finally:
        for ends in made:
            for fd in ends:
                os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (InProcessImageTarget, 300),
        (ImageTarget, 25),
        pytest.param(ImageTarget, 300, marks=pytest.mark.slow),
    ],
)
def test_many_streams_at_once(
    ctx: Context, tmp_path: Path, kind: type[ImageTarget], number: int
) -> None:
    """They arrive side by side, piece by piece; a fifth is damaged, a fifth is aborted midway."""
    limit = HelperLimit()
    with pipes(number) as ends:
        aos = [
            restore_ao(ctx, fd, RestoreOptions(limit=limit), target=kind(ctx, tmp_path / f"{i}"))
            for i, (fd, _) in enumerate(ends)
        ]
        for begin, end in ((0, 3), (3, 100), (100, LIBXL_START + 20)):
            for _, write_end in ends:
                os.write(write_end, IMAGE[begin:end])
            run_until_idle(ctx)
            assert limit.running == 0  # nothing that waits for its sender takes a process
        for i, (_, write_end) in enumerate(ends):
            if i % 5 == 1:
                aos[i].abort()
            else:
                os.write(write_end, bytes(40) if i % 5 == 2 else IMAGE[LIBXL_START + 20 :])
        most = 0

        def all_done() -> bool:
            nonlocal most
            most = max(most, len(children()))
            return all(ao.done for ao in aos)

        run_until(ctx, all_done, patience=600.0)
    kinds = [outcome(ao) for ao in aos]
    assert kinds == [("done", "aborted", "damaged", "done", "done")[i % 5] for i in range(number)]
    assert len(list(tmp_path.iterdir())) == kinds.count("done")
    assert most <= limit.limit + 1  # one may be dead and not yet reaped


@pytest.mark.parametrize("sent", [0, LIBXL_START + 20], ids=["before", "inside the stream"])
def test_the_memory_of_an_idle_stream_is_bounded(ctx: Context, tmp_path: Path, sent: int) -> None:
    number = 100
    with pipes(number) as ends:
        for _, write_end in ends:
            os.write(write_end, IMAGE[:sent])
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            aos = [
                restore_ao(
                    ctx,
                    fd,
                    RestoreOptions(timeouts=Timeouts(silence=60.0, helper=60.0)),
                    target=ImageTarget(ctx, tmp_path / "guest"),
                )
                for fd, _ in ends
            ]
            run_until_idle(ctx)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        for ao in aos:
            ao.abort()
        run_until(ctx, lambda: all(ao.done for ao in aos))
    assert (after - before) / number < IDLE_STREAM_MAX


def test_no_global_state_is_left(tmp_path: Path) -> None:
    """Two contexts beside each other know nothing of one another."""
    path = tmp_path / "image"
    path.write_bytes(IMAGE)
    contexts = [Context(), Context()]
    with open(path, "rb") as first, open(path, "rb") as second:
        aos: Sequence[Ao[RestoreResult]] = [
            restore_ao(context, file.fileno(), target=ImageTarget(context, tmp_path / f"{number}"))
            for number, (context, file) in enumerate(zip(contexts, (first, second)))
        ]
        run_until(contexts[1], lambda: aos[1].done)
        assert not aos[0].done
        assert contexts[1].registered() == []
        run_until(contexts[0], lambda: aos[0].done)
    assert [outcome(ao) for ao in aos] == ["done", "done"]
