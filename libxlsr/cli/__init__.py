"""What a person types."""

from __future__ import annotations
