"""Has the toolstack daemon restore an image: ``client.py SOCKET IMAGE NAME``.

Passes the image's fd and prints what the daemon says. The exit code is that of `libxlsr restore`.
"""

from __future__ import annotations

import json
import socket
import sys


def main() -> int:
    """Ask, and listen to the end."""
    path, image, name = sys.argv[1:]
    event: dict[str, object] = {}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock, open(image, "rb") as file:
        sock.connect(path)
        request = json.dumps({"name": name}) + "\n"
        socket.send_fds(sock, [request.encode()], [file.fileno()])
        for line in sock.makefile():
            print(line, end="", flush=True)
            event = json.loads(line)
    if event.get("event") == "restored":
        return 0
    code = event.get("exit_code", 2)
    return code if isinstance(code, int) else 2


if __name__ == "__main__":
    sys.exit(main())
