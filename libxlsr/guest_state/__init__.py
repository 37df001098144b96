"""What the blobs of a guest's state mean: processors, devices, shared memory, QEMU's own."""
