"""Many restores one after the other in one process, real helpers and all: nothing grows."""
