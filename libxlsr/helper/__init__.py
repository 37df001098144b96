"""A child process that does blocking work for the event loop, and the conversation with it.

The helper does not know what the child does: a *worker*, named by module, brings that. This is the
wall of DESIGN: libxenguest asserts, and a stream can make it; the daemon must survive that.
"""

from __future__ import annotations

from libxlsr.helper.parent import Helper

__all__ = ["Helper"]
