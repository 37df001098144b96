"""A real Xen host under QEMU's software emulation, for tests; see README.md beside this file."""
