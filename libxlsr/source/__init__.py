"""Where a stream comes from: recognising it, decompressing it, and what xl put before it."""

from __future__ import annotations

from libxlsr.source.fd_source import FdSource
from libxlsr.source.opening import Opened, Opening

__all__ = ["FdSource", "Opened", "Opening"]
