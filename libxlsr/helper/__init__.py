"""A child process that does blocking work for the event loop, and the conversation with it.

The helper does not know what the child does: a *worker*, named by module, brings that. It is a
wall: libxenguest asserts, and a stream can make it; the daemon must survive that.

``parent`` is the parent's side, ``child`` the child's, ``protocol`` what they say to each other.
Nothing is imported here, so that the child loads its side only.
"""

from __future__ import annotations
