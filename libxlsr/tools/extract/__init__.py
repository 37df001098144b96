"""Reads guest memory where an index or an offline restore says it is, and writes it as others do.

``frames`` finds and reads it, ``page_tables`` and ``vcpus`` make sense of it, ``raw``,
``elf_core``, ``xen_core`` and ``lime`` write it, ``worker`` is the helper's program.
"""

from __future__ import annotations
