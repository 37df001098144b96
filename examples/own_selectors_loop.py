"""Restores in a daemon that has a `selectors` loop already, and goes on serving while it does.

``own_selectors_loop.py [IMAGE]``. Python's default selector is epoll, which keeps its registrations
between two waits: ``on_fd_change`` tells it of each change in time, and a regular file, which epoll
refuses with EPERM, counts as always ready.
"""

from __future__ import annotations

import os
import selectors
import sys
import tempfile
from pathlib import Path

import libxlsr

IMAGE = Path(__file__).with_name("hvm-ticker-xen4.17.save.xz")


class Daemon:
    """A loop with a job of its own: it answers whoever writes into a pipe."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.ctx = libxlsr.Context()
        self.ctx.on_fd_change = self.fd_changed
        self.always_ready: dict[int, int] = {}
        self.served = 0

    def fd_changed(self, fd: int, interest: int) -> None:
        """Wait for ``interest`` on ``fd`` from now on; 0: forget it."""
        self.always_ready.pop(fd, None)
        if fd in self.selector.get_map():
            self.selector.unregister(fd)
        if interest:
            try:
                self.selector.register(fd, interest, data="libxlsr")
            except PermissionError:
                self.always_ready[fd] = interest

    def serve(self, ao: libxlsr.Ao[libxlsr.RestoreResult]) -> None:
        """The daemon's loop, here until the restore is over."""
        while not ao.done:
            timeout = 0.0 if self.always_ready else self.ctx.timeout()
            ready = self.always_ready.copy()
            for key, bits in self.selector.select(timeout):
                if key.data == "libxlsr":
                    ready[key.fd] = bits
                else:
                    self.served += len(os.read(key.fd, 1))
            self.ctx.dispatch(ready)


def main() -> None:
    """Restore the image offline, beside the daemon's work."""
    image = sys.argv[1] if len(sys.argv) > 1 else IMAGE
    daemon = Daemon()
    requests, client = os.pipe()
    daemon.selector.register(requests, selectors.EVENT_READ, data="request")
    os.write(client, b"hello")
    fd = os.open(image, os.O_RDONLY)
    with tempfile.TemporaryDirectory() as directory:
        options = libxlsr.RestoreOptions(target="image", output=Path(directory) / "guest")
        ao = libxlsr.restore_ao(daemon.ctx, fd, options)
        daemon.serve(ao)
        result = ao.result()
    for number in (fd, requests, client):
        os.close(number)
    daemon.selector.close()
    print(f"{result.guest.name}: {result.guest.pages['NOTAB']} frames restored")
    print(f"{daemon.served} requests served meanwhile")


if __name__ == "__main__":
    main()
