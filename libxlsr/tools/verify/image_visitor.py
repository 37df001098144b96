"""What a walk over a whole image tells of: of xl's and libxl's parts beside libxc's."""

from __future__ import annotations

from libxlsr.formats import libxl, xl
from libxlsr.formats.records import LibxlBody
from libxlsr.libxc.visitor import Record, Visitor


class ImageVisitor(Visitor):
    """Each method does nothing; override what is wanted."""

    def opened(self, kind: str, compression: str | None) -> None:
        """The image was recognised: "xl", "libxl" or "libxc"; "gzip", "xz", "zstd" or None."""

    def xl_header(self, header: xl.Header) -> None:
        """xl's header; what follows it comes in optional_data()."""

    def optional_data(self, data: xl.OptionalData) -> None:
        """The configuration."""

    def libxl_header(self, header: libxl.Header) -> None:
        """The stream's header."""

    def libxl_body(self, record: Record, body: LibxlBody) -> None:
        """The body of a libxl record that has one, but for EMULATOR_CONTEXT."""

    def emulator_context(self, record: Record, head: libxl.EmulatorContext, size: int) -> None:
        """An EMULATOR_CONTEXT whose state (``size`` bytes, not in ``head``) follows."""

    def wants_emulator_state(self) -> bool:
        """Whether emulator_state() is to be called."""
        return False

    def emulator_state(self, piece: bytes | memoryview) -> None:
        """The next bytes of the device model's state, which are there during the call only."""

    def ended(self, *, whole: bool, offset: int) -> None:
        """The walk is over. ``whole``: the end of the image was met where it belongs."""
