"""What needs the compiled module is collected where it was built, and nowhere skipped."""

from __future__ import annotations

import sys
from pathlib import Path

from libxlsr.xen import backend

# cffi_build is no part of the package that is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

collect_ignore_glob = [] if backend.available() else ["test_compiled_*.py"]
if Path("/dev/xen/privcmd").exists():
    collect_ignore_glob.append("test_compiled_without_xen.py")
