"""A restore: the stream reader and a target joined into one operation.

A *target* (``target.Target``) is what a restore needs from below: prepare, run the libxc part on
the fd, take the emulator records, finish, or roll back. ``image`` does it offline, into files;
``xen_target`` does it on a Xen host; ``choose`` knows which of the two fits this machine. The
conformance suite of ``libxlsr.testing`` runs against both.

Nothing is imported here, so that a worker in a helper's child loads its own part only.
"""
