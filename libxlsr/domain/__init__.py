"""A domain as libxl keeps it: what makes one, describes it to the host, and takes it away again.

Nothing here knows of a restore. In the order in which a domain comes to be (libxl's function in
brackets)::

    host            the Xen host: this machine, or a fake one for tests
    connections     the handles on the hypervisor and on xenstored
    config          what its configuration says, typed
    preflight       what can be known beforehand, said in one message
    identity        whether its name and UUID are free, here and twice again
    memory          how much it needs, and whether that is there
    creation_lock   where dom0 may be ballooned: no other domain is made meanwhile [xl's lock]
    ballooning      dom0 gives up what is missing [xl's freemem]
    new_domain      the domain from its creation until it runs
      create        xc_domain_create, limits, event channels, paging pool, TSC
                    [libxl__domain_make, libxl__build_pre, libxl__arch_domain_create]
      cpu_policy    the CPU that its guest was saved with, where the image is a file
      nodes         its nodes, the console's too, in one transaction
                    [libxl__domain_make, libxl__build_post, libxl__device_console_add]
      libxl_files   the configuration for xl [libxl__set_domain_configuration]
      introduction  its rings, features and quota in xenstored [libxl__build_post]
    save_helper     xc_domain_restore, in a child [libxl-save-helper]
    completion      what comes when its memory is there
                    [domcreate_stream_done to domcreate_complete]
      devices       those before and after the device model, in a child
                    [libxl_device_disk_add, libxl_device_nic_add]
      device_model  QEMU, where the domain has one [libxl__spawn_local_dm]
      console       the wait until the primary console has its tty
    undo            what takes each step back
    destruction     the end of a domain [libxl__destroy_domid]
"""

from __future__ import annotations
