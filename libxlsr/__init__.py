"""libxlsr reads a Xen guest's saved or migrating image and brings the guest back to life."""

from __future__ import annotations
