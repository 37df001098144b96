"""Waiting for an operation: what its blocking form does."""

from __future__ import annotations

from typing import TypeVar

from libxlsr.events import Ao, Context, run

T = TypeVar("T")


def wait(ctx: Context, ao: Ao[T]) -> T:
    """Run the loop until ``ao`` is done; its result. Raises its error.

    An exception that ends the loop, such as KeyboardInterrupt, aborts it first, so that everything
    is done or undone when it gets on.
    """
    try:
        run(ctx, lambda: ao.done)
    finally:
        ao.abort()
        run(ctx, lambda: ao.done)
    return ao.result()
