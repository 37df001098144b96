"""The offline target: rebuilds the guest as files, with no Xen and no root.

What it leaves is described in ``layout``.
"""

from __future__ import annotations

from libxlsr.targets.image.target import ImageTarget

__all__ = ["ImageTarget"]
