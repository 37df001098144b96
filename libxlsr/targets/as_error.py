"""What a target's call raised, as the error of the restore."""

from __future__ import annotations

import logging

from libxlsr.errors import LibxlsrError, TargetError

log = logging.getLogger(__name__)


def as_error(error: Exception, doing: str) -> LibxlsrError:
    """The error itself, or a TargetError for a system call's, or for what must not happen.

    The latter names the exception, has it as its cause, and its traceback goes to the debug log.
    ``doing`` says what failed: "finish the domain".
    """
    if isinstance(error, LibxlsrError):
        return error
    if isinstance(error, OSError):
        file = "" if error.filename is None else f" ({error.filename})"
        return TargetError.from_oserror(error, f"could not {doing}{file}")
    log.debug("internal error: could not %s", doing, exc_info=error)
    internal = TargetError(
        f"internal error: could not {doing}: {type(error).__name__}: {error}",
        remedy="please report it, with what is logged at level debug",
    )
    internal.__cause__ = error
    return internal
