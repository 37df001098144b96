"""QEMU, where the domain has one: started, asked, detached or killed.

``model`` is the whole; ``program`` tells which domains have one, and where it is. ``args`` are its
arguments, ``process`` is what runs, ``supervisor`` its parent meanwhile, ``qmp`` the talk with it,
``log_file`` where its own words go. ``emulator_state`` is what the stream has for it.
"""

from __future__ import annotations
