"""A domain's devices: what the configuration says of them, and how libxenlight brings them back.

``plan`` says which devices come, and in which order; ``backend`` which backend a disk gets;
``checks`` what can be known of them beforehand. ``attaching`` has them attached,
and takes them back, by two programs in children, ``attach_worker`` and ``destroy_worker`` (one with
a deadline is a ``timed_child``). ``hotplug`` finds what scripts have left. ``nodes`` writes the
nodes of the two devices that come without libxenlight: console, and an HVM guest's keyboard.
"""

from __future__ import annotations
