"""A datacopier bound to one fd, with what was already read of it."""

from __future__ import annotations

from collections.abc import Callable

from libxlsr.events import Context, CopyResult, Datacopier


class FdSource:
    """Reads exactly n bytes at a time from ``fd``, as `libxlsr.stream.RecordSource` says.

    ``prefix`` are bytes that were read before, to find out what this is; they come first.
    """

    def __init__(self, ctx: Context, fd: int, prefix: bytes = b"") -> None:
        self.fd = fd
        self._datacopier = Datacopier(ctx)
        self._prefix = prefix

    @property
    def received(self) -> int:
        """Bytes read from the fd so far, also of a read that is not over."""
        return self._datacopier.received

    def take_prefix(self) -> bytes:
        """The bytes that were read from the fd and by nobody else; they are the caller's now."""
        prefix, self._prefix = self._prefix, b""
        return prefix

    def read_exactly(
        self, nbytes: int, callback: Callable[[CopyResult], None], *, what: str
    ) -> None:
        """Read exactly ``nbytes``, not less than the prefix, and call back once, later."""
        prefix = self.take_prefix()
        if not prefix:
            self._datacopier.read_exactly(self.fd, nbytes, callback, what=what)
            return
        assert nbytes >= len(prefix)

        def with_prefix(result: CopyResult) -> None:
            data = bytearray(prefix) + result.data
            callback(
                CopyResult(
                    result.outcome, len(data), data, result.error, result.on_write, result.what
                )
            )

        self._datacopier.read_exactly(self.fd, nbytes - len(prefix), with_prefix, what=what)

    def kill(self) -> None:
        """Drop the read in flight, if any; its callback won't come."""
        self._datacopier.kill()
