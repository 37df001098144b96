"""Writes images anew: ``compact`` one of today's, ``legacy`` one of Xen 4.5 or older."""

from __future__ import annotations
