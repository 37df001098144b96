"""Where a stream comes from: recognising it, decompressing it, and what xl put before it."""

from __future__ import annotations
