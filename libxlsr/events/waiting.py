"""Waiting for an operation: what its blocking form does, and a command."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from libxlsr.errors import LibxlsrError
from libxlsr.events import Ao, Context, run
from libxlsr.events.signal_handlers import HeldHandlers

T = TypeVar("T")

logger = logging.getLogger(__name__)

RAISED_MAX = 100
"""Exceptions that undoing puts up with (somebody presses Ctrl-C again and again); a fault of ours
that raises in each round must not make it endless."""


def wait(ctx: Context, begin: Callable[[], Ao[T]]) -> T:
    """Run the loop until what ``begin`` starts is done; its result. Raises its error.

    An exception that ends the loop, such as KeyboardInterrupt or one of the progress callback,
    aborts it first, so that everything is done or undone when it gets on. Whatever is raised
    meanwhile is only logged, and the callback is told no more. In a child that a callback has
    forked nothing is undone: all of it is its parent's.
    """
    with HeldHandlers() as handlers:
        ao = begin()
        try:
            handlers.release()
            run(ctx, lambda: ao.done)
        except BaseException:
            if not ctx.forked:
                _undo(ctx, ao)
            raise
    return ao.result()


def _undo(ctx: Context, ao: Ao[Any]) -> None:
    """Abort ``ao`` and run the loop until it is done, whatever is raised meanwhile."""
    ao.drop_progress()
    ao.abort()
    for _ in range(RAISED_MAX):
        try:
            run(ctx, lambda: ao.done)
        except BaseException as error:
            logger.warning("while an operation was undone: %r", error)
        else:
            _say_what_is_left(ao)
            return
    logger.error("an operation was not undone to its end")


def _say_what_is_left(ao: Ao[Any]) -> None:
    """Who interrupts hears neither of a result that can't be undone any more nor of errors."""
    try:
        ao.result()
    except LibxlsrError as error:
        for later in error.later:
            logger.error("while an operation was undone: %s", later)
    else:
        logger.warning("interrupted too late: the operation was done already")
