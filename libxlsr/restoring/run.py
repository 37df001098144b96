"""What all parts of one restore share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from libxlsr.errors import LibxlsrError
from libxlsr.events import Context
from libxlsr.events.tasks import Tasks
from libxlsr.restoring.helper_limit import Place
from libxlsr.restoring.journal import Journal
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import Phase
from libxlsr.restoring.stream_fd import Loan
from libxlsr.restoring.target import Target


@dataclass(frozen=True)
class Run:
    """One restore, as its parts know it."""

    ctx: Context
    target: Target
    options: RestoreOptions
    tasks: Tasks
    journal: Journal
    place: Place
    loan: Loan

    def stop_target(self, reason: LibxlsrError) -> None:
        """Make the call of the target that is in flight end soon."""
        self.target.abort(reason)

    def await_place(self, go: Callable[[], None]) -> None:
        """Call ``go`` when this restore may have helpers running, now or later.

        Before the first helper starts, and before memory is taken for the guest.
        """

        def stop(_reason: object) -> None:
            self.place.give_back()
            task.ended()

        def granted() -> None:
            task.ended()
            go()

        task = self.tasks.start(stop)
        self.place.take(granted)
        if self.place.waiting:
            self.journal.enter(Phase.QUEUED)
