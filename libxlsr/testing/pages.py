"""Guest pages whose contents can be told from where they lie and when they were sent."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.formats.page_data import PageData
from libxlsr.formats.page_types import has_data

#: ``content(gfn, generation)``: the 4096 bytes of a page, the n-th time that it is sent.
Content = Callable[[int, int], bytes]

_STAMP = struct.Struct("<QQ")
_CHUNK_PAGES = 256


def stamped_page(gfn: int, generation: int = 0) -> bytes:
    """A page full of its guest frame number and ``generation``; no two pages are the same."""
    return _STAMP.pack(gfn, generation) * (PAGE_SIZE // _STAMP.size)


def random_page(gfn: int, generation: int = 0) -> bytes:
    """A page that codecs make a little smaller, as many of a real guest's, always the same for the
    same arguments."""
    return random.Random(f"{gfn} {generation}").randbytes(PAGE_SIZE - 256).ljust(PAGE_SIZE, b"\0")


@dataclass
class PageBatch:
    """The body of one PAGE_DATA record; the contents are made when they are asked for.

    ``frames`` are ``(gfn, type)`` pairs. ``count`` is what the record claims, None for the truth.
    """

    frames: Sequence[tuple[int, int]]
    content: Content = stamped_page
    generation: int = 0
    count: int | None = None

    def __len__(self) -> int:
        return self._page_data().record_length

    def _page_data(self) -> PageData:
        return PageData.of(self.frames)

    def prefix(self) -> bytes:
        """What comes before the contents: the count and the entries."""
        prefix = self._page_data().encode()
        if self.count is None:
            return prefix
        return self.count.to_bytes(4, "little") + prefix[4:]

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces of 1 MiB at most."""
        yield self.prefix()
        with_data = [gfn for gfn, page_type in self.frames if has_data(page_type)]
        for start in range(0, len(with_data), _CHUNK_PAGES):
            yield b"".join(
                self.content(gfn, self.generation)
                for gfn in with_data[start : start + _CHUNK_PAGES]
            )
