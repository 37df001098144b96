"""The child in which libxenguest reads the libxc stream.

``parent`` is this side of it, ``worker`` the program in the child, ``spare`` one kept in reserve.
"""

from __future__ import annotations
