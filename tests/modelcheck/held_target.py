"""A target whose every call waits until the search says how it ends."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Optional

from libxlsr.errors import LibxlsrError, StreamError, TargetError
from libxlsr.events import Context
from libxlsr.events.chain import Done
from libxlsr.formats import libxl
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.restoring.target import (
    FinishDone,
    ImageDescription,
    LibxcDone,
    LibxcOutcome,
    Restored,
    TargetHooks,
)
from libxlsr.stream.libxc_stream import LibxcStream

LIBXC_SIZE = 8
"""Bytes that this libxc reads from its start, or from a checkpoint, to the next one or its end."""

End = Callable[[Optional[LibxlsrError]], None]

_ENDED = "has ended"  # and its callback is on its way


class HeldTarget:
    """Keeps the rules of `libxlsr.restoring.target`; asserts that the restore does."""

    name = "held"

    def __init__(self, ctx: Context, *, checkpoints: int) -> None:
        self._ctx = ctx
        self._end: End | None = None
        self._nested: End | None = None
        self._consumed = 0
        self._hooks: TargetHooks | None = None
        self._stream: LibxcStream | None = None
        self._lent = False
        self._reply: CheckpointReply | None = None
        self._prefix = b""
        self.checkpoints_left = checkpoints
        self.calls: list[str] = []
        self.in_flight: str | None = None
        self.aborted: LibxlsrError | None = None
        self.errors: list[LibxlsrError] = []
        """Those that it reported, from the moment at which the restore heard of them."""
        self.finished = self.rolled_back = False

    # -- the calls

    def prepare(self, image: ImageDescription, hooks: TargetHooks, done: Done) -> None:
        self._hooks = hooks
        self._begin("prepare", done)

    def restore_libxc(self, stream: LibxcStream, done: LibxcDone) -> None:
        assert os.get_blocking(stream.fd), "libxenguest needs the fd blocking"
        self._stream = stream
        self._prefix = stream.prefix

        def end(error: LibxlsrError | None) -> None:
            failover = StreamError("torn", offset=None) if self._failed_over() else None
            outcome = LibxcOutcome(self._consumed, "hvm", failover)
            done(None if error is not None else outcome, error)

        self._begin("restore_libxc", end)

    def emulator_xenstore_data(self, data: libxl.EmulatorXenstoreData, done: Done) -> None:
        self._begin("emulator_xenstore_data", done)

    def emulator_context(self, context: libxl.EmulatorContext, done: Done) -> None:
        self._begin("emulator_context", done)

    def finish(self, done: FinishDone) -> None:
        def end(error: LibxlsrError | None) -> None:
            self.finished = error is None
            done(Restored("held", "nowhere") if error is None else None, error)

        self._begin("finish", end)

    def rollback(self, done: Done) -> None:
        assert not self.rolled_back
        assert not self.finished
        self.rolled_back = True
        self._begin("rollback", done)

    def abort(self, reason: LibxlsrError) -> None:
        assert self.in_flight is not None, "nothing to abort"
        assert self.in_flight != "rollback"
        self.aborted = reason

    def _begin(self, name: str, end: End) -> None:
        if name.startswith("emulator") and self._lent:
            # libxc still runs and waits: this record is within its checkpoint.
            assert self._nested is None, "one call at a time"
            self._nested = end
        else:
            assert self.in_flight is None, f"{name} while {self.in_flight}: one call at a time"
            self.in_flight, self._end = name, end
        assert name == "rollback" or not self.rolled_back, "nothing comes after the rollback"
        self.calls.append(name)
        self.aborted = None

    # -- how they end

    def choices(self, available: int) -> list[str]:
        """How the calls in flight may go on; ``available`` bytes wait to be read."""
        name = self.in_flight
        if self._nested is not None:
            return ["nested ok", "nested fails"] + ["nested stops"] * (self.aborted is not None)
        if name is None or name.endswith(_ENDED):
            return []
        if name == "rollback":
            return ["target ok"]
        if self.aborted is not None:
            finishes = ["target ok"] if name == "finish" else []
            return ["target stops", "target fails", *finishes]
        if name != "restore_libxc":
            return ["target ok", "target fails"]
        if self._lent:
            return []
        if self._reply is CheckpointReply.ERROR:
            return ["target fails"]
        if self._reply is CheckpointReply.FAILOVER:
            return ["target fails over"]
        found = ["target fails", "target dies"]
        if available + len(self._prefix) >= LIBXC_SIZE:
            found.append("target checkpoints" if self.checkpoints_left else "target ok")
        return found

    @property
    def wants_data(self) -> bool:
        """Whether it is libxc that waits for bytes."""
        return (
            self.in_flight == "restore_libxc"
            and not self._lent
            and self.aborted is None
            and self._reply in (None, CheckpointReply.SUCCESS)
        )

    @property
    def acting(self) -> bool:
        """Whether a call is in flight that leaves the restore nothing to read meanwhile."""
        return self._nested is not None or (self.in_flight is not None and not self._lent)

    def do(self, choice: str) -> None:
        """One of the choices."""
        call, how = choice.split(" ", 1)
        if how == "checkpoints":
            self._checkpoint()
            return
        error: LibxlsrError | None = None
        if how == "fails":
            error = TargetError(f"{self.in_flight if call == 'target' else 'nested call'} failed")
        elif how == "dies":
            error = TargetError("the helper was killed by SIGSEGV before it reported a result")
        elif how == "stops":
            error = self.aborted
        elif how == "fails over":
            self._consumed = 0
        elif self.in_flight == "restore_libxc" and call == "target":
            self._read()
        if call == "nested":
            end, self._nested = self._nested, None
        else:
            end, self._end = self._end, None
            self.in_flight = f"{self.in_flight} {_ENDED}"
        assert end is not None
        self._ctx.call_soon(self._ended, end, error, call == "target")

    def _ended(self, end: End, error: LibxlsrError | None, outer: bool) -> None:
        if outer:
            self.in_flight = None
            self._lent = False
        if error is not None and error is not self.aborted:
            self.errors.append(error)
        end(error)

    def _read(self) -> None:
        assert self._stream is not None
        assert os.get_blocking(self._stream.fd)
        wanted = LIBXC_SIZE - len(self._prefix)
        data = os.read(self._stream.fd, wanted) if wanted else b""
        assert len(data) == wanted
        self._consumed = LIBXC_SIZE
        self._prefix = b""

    def _checkpoint(self) -> None:
        assert self._hooks is not None
        self._read()
        self.checkpoints_left -= 1
        self._lent, self._reply = True, None

        def done(reply: CheckpointReply, offset: int) -> None:
            if self.in_flight == "restore_libxc":  # else it was stopped meanwhile
                assert self._lent, "a checkpoint is answered once"
                self._lent, self._reply = False, reply

        self._ctx.call_soon(self._hooks.checkpoint, self._consumed, done)

    def _failed_over(self) -> bool:
        return self._reply is CheckpointReply.FAILOVER
