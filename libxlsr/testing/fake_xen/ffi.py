"""As much of cffi's ``ffi`` as the bindings use, over plain Python objects.

A struct is a namespace, a pointer to a number a list of one, an array of bytes a bytearray, NULL is
None. So the bindings of `libxlsr.xen` run as they are, over libraries that are written in Python.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, Callable

_NUMBER = r"(?:u?int\d+_t|unsigned int|unsigned long)"
_STRUCT_SIZES = {"xen_cpuid_leaf_t": 24, "xen_msr_entry_t": 16}
"""Of those that are filled as bytes (xen/arch-x86/xen.h)."""


class FakeFFI:
    """One ``ffi``, with the bodies that Python has given to C's callbacks."""

    NULL = None

    def __init__(self) -> None:
        self.errno = 0
        self.externs: dict[str, Callable[..., Any]] = {}
        """What `def_extern` was given, by its name."""

    def new(self, cdecl: str, init: Any = None) -> Any:
        """An object of the type, zeroed or with the values of ``init``."""
        array = re.fullmatch(r"(\w[\w ]*?)\s*\[(\d*)\]", cdecl)
        if array is None:
            return [init or 0] if re.match(_NUMBER + r" \*", cdecl) else SimpleNamespace()
        item, length = array[1], array[2]
        if item in ("char", "uint8_t"):
            return bytearray(init if init is not None else int(length))
        if item in _STRUCT_SIZES:
            return bytearray(_STRUCT_SIZES[item] * init)
        if re.fullmatch(_NUMBER, item):
            return list(init)
        return [SimpleNamespace() for _ in range(init)]

    def new_handle(self, obj: object) -> object:
        """Stands for a ``void *`` to the object."""
        return obj

    def from_handle(self, handle: Any) -> Any:
        """The object that the handle was made of."""
        return handle

    def string(self, cdata: bytes) -> bytes:
        """A C string's bytes, without the NUL."""
        return bytes(cdata).partition(b"\0")[0]

    def buffer(self, cdata: Any, size: int | None = None) -> memoryview:
        """The bytes of an array."""
        return memoryview(cdata)[:size]

    def def_extern(
        self, *, name: str, error: object = None
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Give one of C's callbacks its body."""

        def bind(body: Callable[..., Any]) -> Callable[..., Any]:
            self.externs[name] = body
            return body

        return bind
