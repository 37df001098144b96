"""The target that restores the real domain on a Xen host, as libxl does.

The order of a restore, and where each part of it is (libxl's function in brackets)::

    preflight       what can be known beforehand, said in one message
    identity        whether its name and UUID are free, here and twice again
    memory          how much the domain needs, and whether it is there
    creation_lock   where dom0 may be ballooned: no other domain is made meanwhile
    ballooning      dom0 gives up what is missing [xl's freemem]
    create          xc_domain_create, limits, event channels, paging pool, TSC
                    [libxl__domain_make, libxl__build_pre, libxl__arch_domain_create]
    cpu_policy      whether the host can give the guest its CPU, where the image is a file
    restore_helper  xc_domain_restore, in the helper's child [libxl-save-helper]
    xenstore_nodes  meanwhile the domain's nodes, its console's too, in one transaction
                    [libxl__domain_make, libxl__build_post, libxl__device_console_add]
    libxl_files     and the configuration for xl [libxl__set_domain_configuration]
    xenstore_nodes  the rings, and the introduction [libxl__build_post]
    device_model    an HVM guest's, as the stream has it: its state [write_emulator_blob]
    devices         those before and after it, in a child
                    [libxl_device_disk_add, _nic_add, ...]
    device_model    QEMU, where the domain has one [libxl__spawn_local_dm]
    console         the wait until the primary console has its tty
    target          the whole, and the unpause

``host`` is the Xen host that all of these work on: this machine, or a fake one for tests.
``config`` is what the image's JSON says, typed; ``overrides`` what the caller says instead.
``steps`` is how one follows the other where there is something to wait for. ``undo`` holds what
takes each step back, ``rollback`` undoes a restore that has stopped.
"""

from __future__ import annotations
