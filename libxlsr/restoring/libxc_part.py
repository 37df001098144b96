"""libxc's part of a restore: the target is prepared, and has the fd until it has read its stream.

The chain of events::

    restore → await_place → target.prepare → target.restore_libxc ⇄ checkpoint → done
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from libxlsr.errors import LibxlsrError
from libxlsr.events.chain import Done
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.restoring.progress import Phase
from libxlsr.restoring.run import Run
from libxlsr.restoring.target import CheckpointDone, ImageDescription, LibxcOutcome
from libxlsr.restoring.timeouts import Timeouts
from libxlsr.stream.fd_source import FdSource
from libxlsr.stream.libxc_stream import LibxcStream


class LibxcPart:
    """One restore's. It is the target's hooks.

    ``advanced(consumed)`` is told how many bytes libxc has read since it was last told (None: not
    known). ``on_checkpoint(done)`` reads the records of one checkpoint while libxc waits;
    ``done(reply, offset)`` says where libxc's next byte is.
    """

    def __init__(
        self,
        run: Run,
        source: FdSource,
        *,
        advanced: Callable[[int | None], None],
        on_checkpoint: Callable[[CheckpointDone], None],
        keeps_place: bool,
    ) -> None:
        """``keeps_place``: other helpers of the restore run on after this part's."""
        self._run = run
        self._source = source
        self._advanced = advanced
        self._on_checkpoint = on_checkpoint
        self._keeps_place = keeps_place
        self._running = False
        self.offset = 0
        """Where it begins in the stream, once it has begun."""
        self.outcome: LibxcOutcome | None = None

    def restore(self, image: ImageDescription, offset: int, done: Done) -> None:
        """Have the target prepared and libxc's stream, which begins at ``offset``, read.

        ``done(error)`` comes unless something else fails before.
        """

        def prepare() -> None:
            self._run.journal.enter(Phase.PREPARING)
            self._run.tasks.call(
                lambda ended: self._run.target.prepare(image, self, ended),
                prepared,
                stop=self._run.stop_target,
                doing="let the target prepare itself",
            )

        def prepared(error: LibxlsrError | None) -> None:
            if error is not None:
                done(error)
            else:
                self._read(offset, done)

        self._run.await_place(prepare)

    def _read(self, offset: int, done: Done) -> None:
        """Lend the fd to the target until its libxc part has ended."""
        run = self._run
        run.journal.enter(Phase.MEMORY)
        self.offset = offset
        stream = LibxcStream(self._source.fd, offset, self._source.take_prefix())
        run.loan.lend(self._source.fd)
        self._running = True

        def call(ended: Done) -> None:
            def finished(outcome: LibxcOutcome | None, error: LibxlsrError | None) -> None:
                self._ended(outcome)
                ended(error)

            try:
                run.target.restore_libxc(stream, finished)
            except Exception:
                self._ended(None)
                raise

        def read(error: LibxlsrError | None) -> None:
            run.journal.enter(Phase.RECORDS)
            done(error)

        run.tasks.call(call, read, stop=run.stop_target, doing="let the target read the memory")

    def _ended(self, outcome: LibxcOutcome | None) -> None:
        self._running = False
        self._run.loan.take_back()
        if not self._keeps_place:
            self._run.place.give_back()
        self.outcome = outcome
        if outcome is not None:
            self._advanced(outcome.consumed)

    # -- the target's hooks

    @property
    def timeouts(self) -> Timeouts:
        """See `libxlsr.restoring.target.TargetHooks`."""
        return self._run.options.timeouts

    def progress(self, counters: Mapping[str, int]) -> None:
        """See `libxlsr.restoring.target.TargetHooks`."""
        self._run.journal.count(counters)

    def log(self, level: int, text: str) -> None:
        """See `libxlsr.restoring.target.TargetHooks`."""
        self._run.journal.log(level, text)

    def checkpoint(self, consumed: int, done: CheckpointDone) -> None:
        """See `libxlsr.restoring.target.TargetHooks`."""
        self._advanced(consumed)
        self._run.loan.take_back()

        def finished(reply: CheckpointReply, offset: int) -> None:
            if self._running:
                self._run.loan.lend(self._source.fd)
                done(reply, offset)

        self._on_checkpoint(finished)
