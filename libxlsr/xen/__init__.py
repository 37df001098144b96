"""Xen's libraries, typed: libxenctrl, libxenguest and libxenstore through a compiled module, and
libxenlight through a second one.

Importing this package and its modules takes no Xen. What needs the compiled module raises
``BackendUnavailable`` with what to install.

===========  ========================================================================
backend      finds the compiled module, compares it with the running hypervisor
rawlib       typed Protocols over cffi's lib: only this package sees them
toollog      log lines and progress of Xen's libraries, to Python
xenctrl      the handle on the hypervisor
xenguest     the restore of a libxc stream, CPU policies
hostinfo     what Xen says about the host and its domains, as plain records
xenstore     nodes, permissions, transactions
xenlight     devices of a domain, the destruction of a domain with its devices
watches      xenstore watches on the event loop
===========  ========================================================================
"""

from __future__ import annotations
