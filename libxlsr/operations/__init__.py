"""Operations: the reader and a target meet here, and only here."""

from __future__ import annotations
