"""Faults at the system-call level: one call of a restore fails, then the next one, and so on."""
