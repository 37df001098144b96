"""The offline target without its child: libxc's part is read in this process, blocking.

For tests of many cases: it runs the code of the helper's worker, and all of the target, at a
hundredth of the cost. Streams with checkpoints need the real one, because libxc lends the fd out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from libxlsr.errors import LibxlsrError
from libxlsr.helper.child import Channel
from libxlsr.restoring.image import worker
from libxlsr.restoring.image.target import ImageTarget
from libxlsr.restoring.target import LibxcDone
from libxlsr.stream.libxc_stream import LibxcStream


class InProcessImageTarget(ImageTarget):
    """`ImageTarget`, but for the process that reads libxc's part."""

    def restore_libxc(self, stream: LibxcStream, done: LibxcDone) -> None:
        """Read the stream into the staging directory, now."""
        assert self._staged is not None
        result: dict[str, Any] | None = None
        error: LibxlsrError | None = None
        config = self._image.config
        try:
            result = self.run_worker(
                {
                    "fd": stream.fd,
                    "offset": stream.offset,
                    "prefix": stream.prefix.hex(),
                    "directory": str(self._staged.path),
                    "domain": None if config is None else (config.domain_type, config.max_vcpus),
                }
            )
        except LibxlsrError as raised:
            error = raised
        self._ctx.call_soon(self._helper_done, done, result, error)

    def run_worker(self, args: dict[str, Any]) -> dict[str, Any]:
        """Run the worker as the helper's child does."""
        return worker.run(cast(Channel, _Loopback(self, args)))


class _Loopback:
    """As much of a worker's channel as can be had without another process."""

    def __init__(self, target: InProcessImageTarget, args: dict[str, Any]) -> None:
        self._target = target
        self._args = args
        self._next = 0

    def receive_work(self) -> dict[str, Any]:
        """The worker's arguments."""
        return self._args

    def progress(self, counters: Mapping[str, int]) -> None:
        """Pass it on, once for each MiB: a worker throttles it by time."""
        assert self._target._hooks is not None
        if counters["bytes"] >= self._next:
            self._next = counters["bytes"] + (1 << 20)
            self._target._hooks.progress(counters)
