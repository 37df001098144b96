"""A domain's devices: what the configuration says of them, and how libxenlight brings them back.

``config`` is what the image's JSON says, of the device model too; ``plan`` which devices come, and
in which order; ``checks`` what can be known of them beforehand. ``attaching`` has them attached,
and takes them back, by two programs in children, ``attach_worker`` and ``destroy_worker`` (one with
a deadline is a ``timed_child``). ``hotplug`` finds what scripts have left. ``nodes`` writes the
nodes of the two devices that come without libxenlight: console, and an HVM guest's keyboard.
"""

from __future__ import annotations
