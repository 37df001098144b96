#!/usr/bin/python3 -IS
"""A device model that does not do what it should; its last but one argument says how.

It is a real process that is started as QEMU is, with QEMU's arguments (b_info.device_model in the
configuration names it, b_info.extra the way to fail).
"""

import contextlib
import json
import os
import signal
import socket
import sys
import time

GREETING: dict[str, object] = {"QMP": {"version": {}, "capabilities": []}}


def say(peer: socket.socket, message: object) -> None:
    peer.sendall(json.dumps(message).encode() + b"\r\n")


def main() -> None:
    way = sys.argv[sys.argv.index("-way") + 1]
    print("no display", flush=True)
    if way == "exits":
        sys.exit(3)
    if way == "is-killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "never-listens":
        time.sleep(3600)
    chardev = next(argument for argument in sys.argv if "id=libxl-cmd" in argument)
    path = next(part for part in chardev.split(",") if part.startswith("path="))[len("path=") :]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    peer, _ = listener.accept()
    if way == "never-greets":
        time.sleep(3600)
    if way == "rubbish":
        peer.sendall(b"\x7fELF" * 1000 + b"\n")
        time.sleep(3600)
    if way == "floods":
        with contextlib.suppress(ConnectionError):
            while True:
                peer.sendall(b"x" * 65536)
        time.sleep(3600)
    say(peer, GREETING)
    for line in peer.makefile("rb"):
        asked = json.loads(line)
        if asked["execute"] == "query-status":
            if way == "hangs-up":
                return
            if way == "never-ready":
                say(peer, {"return": {"status": "inmigrate"}, "id": asked["id"]})
                continue
            if way in ("exits-while-it-reads", "hangs-up-while-it-reads"):
                say(peer, {"return": {"status": "inmigrate"}, "id": asked["id"]})
                if way == "exits-while-it-reads":
                    sys.exit(5)
                break
            if way == "wrong-state":
                say(peer, {"return": {"status": "internal-error"}, "id": asked["id"]})
                continue
            say(peer, {"return": {"status": "running"}, "id": asked["id"]})
        elif asked["execute"] == "query-chardev":
            ports = [
                {"label": "serial0", "filename": "null"},
                {"label": "serial1", "filename": "pty:/dev/pts/9"},
                {"label": "serial-x", "filename": "pty:/dev/pts/1"},
                7,
            ]
            say(peer, {"return": ports, "id": asked["id"]})
        elif asked["execute"] == "query-vnc":
            host = 7 if way == "lies-about-vnc" else "127.0.0.1"
            server = {"enabled": True, "host": host, "service": "5900"}
            say(peer, {"return": server, "id": asked["id"]})
        elif asked["execute"] == "change-vnc-password":
            print(json.dumps(asked["arguments"]), flush=True)
            say(peer, {"return": {}, "id": asked["id"]})
            if way == "hangs-up-when-ready":
                break
        elif asked["execute"] == "cont" and way == "refuses-to-go-on":
            say(peer, {"error": {"class": "GenericError", "desc": "I won't"}, "id": asked["id"]})
        elif asked["execute"] == "cont" and way == "dies-before-it-goes-on":
            sys.exit(4)
        else:
            say(peer, {"return": {}, "id": asked["id"]})
    with contextlib.suppress(OSError):
        peer.shutdown(socket.SHUT_RDWR)
    time.sleep(3600)  # as QEMU does not end when its monitor hangs up


if __name__ == "__main__":
    main()
