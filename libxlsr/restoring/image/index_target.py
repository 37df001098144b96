"""A target that finds out where everything in an image lies, for those who then read it."""

from __future__ import annotations

from libxlsr.errors import LibxlsrError
from libxlsr.events.chain import Done
from libxlsr.formats import libxl
from libxlsr.restoring.image import index
from libxlsr.restoring.image.target import ImageTarget
from libxlsr.restoring.target import ImageDescription, TargetHooks


class IndexTarget(ImageTarget):
    """An offline restore without the copying; see ``index`` for the files that it leaves.

    They are worth something only as long as the image's file is there and unchanged.
    """

    name = "index"
    _worker = "libxlsr.restoring.image.index_worker"

    def prepare(self, image: ImageDescription, hooks: TargetHooks, done: Done) -> None:
        """Make the staging directory, and keep the stream's header."""

        def prepared(error: LibxlsrError | None) -> None:
            header = image.stream_header
            if error is None and header is not None:
                self._at_once(lambda: self._write(index.LIBXL_HEADER, header.encode()), done)
            else:
                done(error)

        super().prepare(image, hooks, prepared)

    def emulator_xenstore_data(self, data: libxl.EmulatorXenstoreData, done: Done) -> None:
        """Write the record's body as it was."""
        self._keep(libxl.RecordType.EMULATOR_XENSTORE_DATA, data.encode(), done)

    def emulator_context(self, context: libxl.EmulatorContext, done: Done) -> None:
        """Write the record's body as it was."""
        self._keep(libxl.RecordType.EMULATOR_CONTEXT, context.encode(), done)

    def _keep(self, record_type: libxl.RecordType, body: bytes, done: Done) -> None:
        name = index.LIBXL_RECORDS[record_type]
        self._at_once(lambda: self._write(name, body), done)
