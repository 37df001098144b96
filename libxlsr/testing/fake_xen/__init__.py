"""A Xen host of Python, on which `XenTarget` restores guests; docs/test-kit.md shows its use.

It enters below the bindings: `libxlsr.xen` runs as it is, over libraries written in Python.

=============  =====================================================================
host           ``FakeXenHost``, the whole; what a test looks at and changes
state          what all libraries share; which calls fail
hypervisor     domains, memory, ports, parameters
xenstored      nodes, transactions, watches; xenconsoled
ffi            cffi's ``ffi`` over Python objects
libxenctrl, libxenguest, libxenlight, libxenstore
               the functions of each library
libraries      them together, as the bindings take them
remote, child  the same from a helper's child
processes      helpers' children and device models
in_process     both without a process
device_model   the program that runs where QEMU would
=============  =====================================================================
"""

from __future__ import annotations

from libxlsr.testing.fake_xen.failure import XenFailure
from libxlsr.testing.fake_xen.host import FakeXenHost

__all__ = ["FakeXenHost", "XenFailure"]
