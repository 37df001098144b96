"""Registers, addresses and masks in JSON: strings in hexadecimal.

64 bits are more than many readers of JSON take. Counts are numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def hexadecimal(value: int) -> str:
    """A register, an address or a mask."""
    return f"{value:#x}"


def registers(values: Mapping[str, int | list[int]]) -> dict[str, Any]:
    """Registers by their names."""
    return {
        name: [hexadecimal(item) for item in value]
        if isinstance(value, list)
        else hexadecimal(value)
        for name, value in values.items()
    }
