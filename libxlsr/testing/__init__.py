"""The test kit, for those who embed libxlsr or write a target: docs/test-kit.md shows each part.

Public are ``builder``, ``parts``, ``damage``, ``legacy`` and ``pages`` (images, right and wrong),
``feeding`` and ``fds`` (how they arrive), ``clock`` and ``stepping`` (time, one event at a time),
``reader_stepper`` (the state machine by hand), ``fake_target``, ``fake_xen`` (a whole Xen host),
``conformance`` (needs pytest) and ``leaks``. The other modules serve this project's own tests.
Nothing is imported here.
"""
