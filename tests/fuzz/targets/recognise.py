"""Invariant: any bytes are of a kind that is known by their first eight alone, or of none."""

from __future__ import annotations

from collections.abc import Mapping

from libxlsr.formats.recognise import SIZE, recognise

KINDS = {"xl", "libxl", "libxc", "legacy", "gzip", "xz", "zstd", None}


def check(data: bytes) -> None:
    kind = recognise(data)
    assert kind in KINDS
    assert recognise(bytearray(data[:SIZE])) == kind
    assert recognise(memoryview(data)) == kind


def seeds() -> Mapping[str, bytes]:
    return {
        "xl": b"Xen saved domain",
        "libxl": b"LibxlFmt\0\0\0\2",
        "libxc": b"\xff" * 8 + b"XENF",
        "legacy": b"\0\1\0\0\0\0\0\0",
        "gzip": b"\x1f\x8b\x08\0\0\0\0\0",
        "xz": b"\xfd7zXZ\0\0\4",
        "zstd": b"\x28\xb5\x2f\xfd\4\0\0\0",
    }
