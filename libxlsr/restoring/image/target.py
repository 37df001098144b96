"""The parent's side of an offline restore."""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path
from typing import Any, Callable

from libxlsr.errors import LibxlsrError, StreamError, TargetError
from libxlsr.events import Context
from libxlsr.events.chain import Done
from libxlsr.formats import libxl
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.helper.parent import Helper
from libxlsr.helper.protocol import ProtocolError
from libxlsr.restoring.image import layout
from libxlsr.restoring.image.output import StagedOutput
from libxlsr.restoring.target import (
    FinishDone,
    ImageDescription,
    LibxcDone,
    LibxcOutcome,
    Restored,
    TargetHooks,
)
from libxlsr.stream.libxc_stream import LibxcStream

logger = logging.getLogger(__name__)

MANIFEST_VERSION = 1


class ImageTarget:
    """Rebuilds one guest below ``output``, a directory that must not exist yet.

    Follows the rules of `libxlsr.restoring.target`. Its own writes are of a few KiB; the helper
    writes guest memory.
    """

    name = "image"
    _worker = "libxlsr.restoring.image.worker"

    def __init__(self, ctx: Context, output: str | os.PathLike[str]) -> None:
        self._ctx = ctx
        self._output = Path(output).absolute()
        self._staged: StagedOutput | None = None
        self._helper: Helper | None = None
        self._hooks: TargetHooks | None = None
        self._image = ImageDescription(config=None, stream_header=None)
        self._libxc: dict[str, Any] = {}
        self._emulator: libxl.EmulatorContext | None = None

    def prepare(self, image: ImageDescription, hooks: TargetHooks, done: Done) -> None:
        """Make the staging directory."""
        self._image = image
        self._hooks = hooks

        def prepare() -> None:
            self._staged = StagedOutput(self._output)
            if image.config is not None:
                self._staged.write(layout.CONFIG, image.config.raw[:-1])

        self._at_once(prepare, done)

    def restore_libxc(self, stream: LibxcStream, done: LibxcDone) -> None:
        """Have the helper read the stream into the staging directory."""
        assert self._staged is not None
        assert self._hooks is not None

        config = self._image.config
        self._helper = Helper(
            self._ctx,
            self._worker,
            on_done=functools.partial(self._helper_done, done),
            on_log=self._hooks.log,
            on_progress=self._hooks.progress,
            on_call=self._helper_call,
        )
        args = {
            "offset": stream.offset,
            "prefix": stream.prefix.hex(),
            "directory": str(self._staged.path),
            "domain": None if config is None else (config.domain_type, config.max_vcpus),
        }
        try:
            self._helper.start(args, {"fd": stream.fd})
        except TargetError as error:
            self._helper = None
            self._ctx.call_soon(done, None, error)

    def _helper_done(
        self, done: LibxcDone, result: dict[str, Any] | None, error: LibxlsrError | None
    ) -> None:
        self._helper = None
        if result is None:
            done(None, error)
            return
        self._libxc = result
        failover = result["failover"]
        done(
            LibxcOutcome(
                consumed=result["consumed"],
                guest_kind=result["kind"],
                failover=None
                if failover is None
                else StreamError(failover, offset=None, at_end=result["failover_at_end"]),
            ),
            None,
        )

    def emulator_xenstore_data(self, data: libxl.EmulatorXenstoreData, done: Done) -> None:
        """Write the keys and values as JSON."""
        value = {
            "emulator": libxl.EMULATOR_NAMES[data.emulator_id],
            "index": data.emulator_index,
            "keys": dict(data.pairs),
        }
        self._at_once(lambda: self._write_json(layout.EMULATOR_XENSTORE, value), done)

    def emulator_context(self, context: libxl.EmulatorContext, done: Done) -> None:
        """Write the blob."""
        self._emulator = context
        self._at_once(lambda: self._write(layout.EMULATOR_CONTEXT, context.context), done)

    def finish(self, done: FinishDone) -> None:
        """Write the manifest and publish the output."""
        assert self._staged is not None
        try:
            self._write_json(layout.MANIFEST, self._manifest(self._staged.path))
            self._staged.publish()
        except LibxlsrError as error:
            self._ctx.call_soon(done, None, error)
            return
        except OSError as error:
            failure = TargetError.from_oserror(error, "can't list the output", call="readdir")
            self._ctx.call_soon(done, None, failure)
            return
        self._staged = None
        self._ctx.call_soon(done, self._restored(), None)

    def rollback(self, done: Done) -> None:
        """Remove the staging directory."""
        staged, self._staged = self._staged, None

        def rollback() -> None:
            if staged is not None:
                try:
                    staged.discard()
                except OSError as error:
                    raise TargetError.from_oserror(error, f"can't remove {staged.path}") from error

        self._at_once(rollback, done)

    def abort(self, reason: LibxlsrError) -> None:
        """Stop the helper, if it runs."""
        if self._helper is not None:
            self._helper.abort(reason)

    # -- within

    def _at_once(self, action: Callable[[], None], done: Done) -> None:
        """Do what takes no time, and call back from the event loop all the same."""
        error: LibxlsrError | None = None
        try:
            action()
        except LibxlsrError as raised:
            error = raised
        self._ctx.call_soon(done, error)

    def _write(self, name: str, data: bytes) -> None:
        assert self._staged is not None
        self._staged.write(name, data)

    def _write_json(self, name: str, value: object) -> None:
        assert self._staged is not None
        self._staged.write_json(name, value)

    def _helper_call(
        self, name: str, args: dict[str, Any], reply: Callable[[dict[str, Any]], None]
    ) -> None:
        assert self._hooks is not None
        consumed = args.get("consumed")
        if name != "checkpoint" or type(consumed) is not int:
            raise ProtocolError(f"that asks for {name!r} with {sorted(args)}")

        def checkpoint_done(answer: CheckpointReply, offset: int) -> None:
            reply({"reply": int(answer), "offset": offset})

        self._hooks.checkpoint(consumed, checkpoint_done)

    def _manifest(self, directory: Path) -> dict[str, object]:
        header = self._image.stream_header
        config = self._image.config
        emulator = self._emulator
        files = sorted(
            str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()
        )
        return {
            "manifest_version": MANIFEST_VERSION,
            "name": None if config is None else config.name,
            "domain_type": None if config is None else config.domain_type,
            "libxl": None if header is None else {"version": header.version},
            "libxc": {
                "version": self._libxc["version"],
                "kind": self._libxc["kind"],
                "xen_version": self._libxc["xen_version"],
                "checkpoints": self._libxc["checkpoints"],
            },
            "emulator": None
            if emulator is None
            else {
                "emulator": libxl.EMULATOR_NAMES[emulator.emulator_id],
                "index": emulator.emulator_index,
            },
            "page_size": 4096,
            "pages": self._libxc["pages"],
            "records": self._libxc["records"],
            "failover": self._libxc["failover"],
            "frames_that_failed_verification": self._libxc["mismatches"],
            "files": [layout.MANIFEST, *files],
        }

    def _restored(self) -> Restored:
        config = self._image.config
        notes = []
        if self._libxc["mismatches"]:
            notes.append(f"{self._libxc['mismatches']} frames differed in the sender's verify pass")
        return Restored(
            target=self.name,
            where=str(self._output),
            name=None if config is None else config.name,
            domain_type=self._libxc["kind"] if config is None else config.domain_type,
            memory_kib=None if config is None else config.target_memkb,
            vcpus=None if config is None else config.max_vcpus,
            xen_version=self._libxc["xen_version"],
            pages=self._libxc["pages"],
            records=self._libxc["records"],
            notes=tuple(notes),
        )
