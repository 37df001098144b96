"""Builds libxlsr.xen._xen, the compiled module over Xen's libraries (cffi, API mode)."""
