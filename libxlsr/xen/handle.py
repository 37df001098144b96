"""What has to be given back: what Xen's libraries hand out, and a child that waits for work."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

_H = TypeVar("_H", bound="Handle")


class Handle:
    """A context manager that closes itself at its end."""

    def close(self) -> None:
        """Give it back; closing twice is harmless."""
        raise NotImplementedError

    def __enter__(self: _H) -> _H:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
