#!/usr/bin/python3 -IS
"""A device model that talks QMP and is no machine: ready at once, or wrong in the way it is told.

It is a real process that is started as QEMU is, with QEMU's arguments. A configuration's
b_info.extra has ``-way WAY`` where it shall go wrong. It needs nothing of libxlsr: a test may run
this file where QEMU would be.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

GREETING: dict[str, Any] = {"QMP": {"version": {}, "capabilities": []}}

SERIAL_PORTS = [
    {"label": "serial0", "filename": "null"},
    {"label": "serial1", "filename": "pty:/dev/pts/9"},
    {"label": "serial-x", "filename": "pty:/dev/pts/1"},
    7,
]
VNC = {"enabled": True, "host": "127.0.0.1", "service": "5900"}

ANSWERS: dict[str, Any] = {
    "query-status": {"status": "running"},
    "query-chardev": SERIAL_PORTS,
    "query-vnc": VNC,
}

WAYS = (
    "exits",
    "is-killed",
    "never-listens",
    "never-greets",
    "never-ready",
    "rubbish",
    "floods",
    "hangs-up",
    "hangs-up-while-it-reads",
    "hangs-up-when-ready",
    "exits-while-it-reads",
    "wrong-state",
    "lies-about-vnc",
    "refuses-to-go-on",
    "dies-before-it-goes-on",
)
"""How it can go wrong."""


def reply_to(asked: dict[str, Any]) -> dict[str, Any]:
    """The right answer to a command."""
    return {"return": ANSWERS.get(asked["execute"], {}), "id": asked["id"]}


def socket_path(argv: Sequence[str]) -> str:
    """Where it shall listen for the toolstack."""
    chardev = next(argument for argument in argv if "id=libxl-cmd" in argument)
    return next(part for part in chardev.split(",") if part.startswith("path="))[len("path=") :]


def say(peer: socket.socket, message: object) -> None:
    peer.sendall(json.dumps(message).encode() + b"\r\n")


def main() -> None:
    way = sys.argv[sys.argv.index("-way") + 1] if "-way" in sys.argv else "well"
    print("no display", flush=True)
    if way == "exits":
        sys.exit(3)
    if way == "is-killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "never-listens":
        time.sleep(3600)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(socket_path(sys.argv))
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
        if answer(peer, asked, way):
            break
    with contextlib.suppress(OSError):
        peer.shutdown(socket.SHUT_RDWR)
    time.sleep(3600)  # as QEMU does not end when its monitor hangs up


def answer(peer: socket.socket, asked: dict[str, Any], way: str) -> bool:
    """Answer a command; whether to hang up then."""
    command, reply = asked["execute"], reply_to(asked)
    if command == "query-status":
        if way == "hangs-up":
            sys.exit(0)
        if way in ("never-ready", "exits-while-it-reads", "hangs-up-while-it-reads"):
            reply["return"] = {"status": "inmigrate"}
        elif way == "wrong-state":
            reply["return"] = {"status": "internal-error"}
    elif command == "query-vnc" and way == "lies-about-vnc":
        reply["return"] = {**VNC, "host": 7}
    elif command == "change-vnc-password":
        print(json.dumps(asked["arguments"]), flush=True)
    elif command == "cont" and way == "refuses-to-go-on":
        reply = {"error": {"class": "GenericError", "desc": "I won't"}, "id": asked["id"]}
    elif command == "cont" and way == "dies-before-it-goes-on":
        sys.exit(4)
    say(peer, reply)
    if command == "query-status" and way == "exits-while-it-reads":
        sys.exit(5)
    return (command, way) in (
        ("query-status", "hangs-up-while-it-reads"),
        ("change-vnc-password", "hangs-up-when-ready"),
    )


if __name__ == "__main__":
    main()
