"""Walks through an image that lies somewhere, record by record, without restoring it.

``source`` gives the bytes, ``walker`` knows the grammar, a ``Visitor`` is told what is met.
"""

from __future__ import annotations
