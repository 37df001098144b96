"""What libxlsr's loggers say, on standard error, for the commands that do work with loggers."""

from __future__ import annotations

import logging


def set_up_logging(verbose: int) -> None:
    """Only this program's own loggers: `transitions` logs ten lines a transition at DEBUG."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("libxlsr: %(levelname)s: %(message)s"))
    logger = logging.getLogger("libxlsr")
    logger.handlers = [handler]
    logger.propagate = False
    # An error is reported once, in a line of its own; libraries log theirs too.
    logger.setLevel((logging.CRITICAL, logging.INFO, logging.DEBUG)[min(verbose, 2)])
