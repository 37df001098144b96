"""What is in an image: collected in one walk, decoded, and compared with another's."""

from __future__ import annotations
