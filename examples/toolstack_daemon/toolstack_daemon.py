"""A toolstack daemon: restores the images whose fds clients pass over a Unix socket.

``toolstack_daemon.py --socket PATH [--mode 0660] [--group NAME] --output DIR | --target xen``

A client connects, sends a line of JSON with one fd attached (SCM_RIGHTS), and hears lines of JSON::

    > {"name": "web1"}                                  and the image's fd
    < {"event": "progress", "phase": "memory", "position": 65536, "total": 258876, "frames": 512}
    < {"event": "restored", "where": "/var/lib/toolstack-daemon/web1", ...}
    < {"event": "failed", "error": "at offset 0x1c: ...", "exit_code": 1}

One restore a connection. Who disconnects cancels theirs; SIGTERM cancels all. Either way everything
is undone before the daemon goes on, or ends. shutdown(SHUT_WR) is no disconnect: a client that has
said all may do that and listen. Who may connect is what the socket's mode says.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import logging
import os
import re
import select
import shutil
import signal
import socket
import stat
import struct
import sys
from pathlib import Path
from typing import NoReturn

from libxlsr import (
    LibxlsrError,
    RestoreOptions,
    RestoreResult,
    TargetName,
    Timeouts,
    UsageError,
    aio,
)

log = logging.getLogger("toolstack_daemon")

REQUEST_MAX = 4096
REQUEST_TIMEOUT = 10.0
"""Seconds in which a client that has connected must have said what it wants."""
TIMEOUTS = Timeouts(silence=60.0, helper=300.0)
"""Seconds after which a sender that sends nothing, or a helper that does nothing, is given up."""
CLIENTS_MAX = 100
"""Connections at a time; more of them wait in the listening socket's queue."""
ACCEPT_PAUSE = 1.0
"""Seconds before the next attempt to accept a client, when the system can't (no fd, no memory)."""
FDS_MAX = 4
FD_KINDS = (stat.S_ISREG, stat.S_ISBLK, stat.S_ISFIFO, stat.S_ISSOCK)
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
SD_LISTEN_FDS_START = 3  # sd_listen_fds(3)


class Refused(Exception):
    """A request that is none."""


class Daemon:
    """Serves one listening socket until it is cancelled."""

    def __init__(self, target: TargetName, output: Path | None) -> None:
        self.target = target
        self.output = output
        self.clients: set[asyncio.Task[None]] = set()
        self.room = asyncio.Semaphore(CLIENTS_MAX)

    async def serve(self, listener: socket.socket) -> None:
        """Accept clients; at the end cancel what they have running, and wait for it."""
        async with aio.Adapter(spare_helper=self.target == "xen") as adapter:
            try:
                await self.accept_all(listener, adapter)
            finally:
                for task in self.clients:
                    task.cancel()
                await asyncio.gather(*self.clients, return_exceptions=True)

    async def accept_all(self, listener: socket.socket, adapter: aio.Adapter) -> NoReturn:
        """Accept clients, whatever becomes of them."""
        loop = asyncio.get_running_loop()
        while True:
            await self.room.acquire()
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as error:
                log.error("can't accept a client: %s", error)
                self.room.release()
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            task = asyncio.ensure_future(Client(self, adapter, client).serve())
            self.clients.add(task)
            task.add_done_callback(self.gone)

    def gone(self, task: asyncio.Task[None]) -> None:
        """A client was served."""
        self.clients.discard(task)
        self.room.release()


class Client:
    """One connection."""

    def __init__(self, daemon: Daemon, adapter: aio.Adapter, sock: socket.socket) -> None:
        self.daemon = daemon
        self.adapter = adapter
        self.sock = sock
        self.loop = asyncio.get_running_loop()
        pid, uid = peer(sock)
        self.who = f"pid {pid}, uid {uid}"

    async def serve(self) -> None:
        """Restore what the client hands over, unless it goes away before that is done."""
        self.sock.setblocking(False)
        with self.sock:
            try:
                await self.do_as_asked()
            except (asyncio.TimeoutError, OSError) as error:
                log.warning("lost %s: %s", self.who, str(error) or "no request in time")

    async def do_as_asked(self) -> None:
        """One request and what comes of it. Raises TimeoutError without one, OSError at its end."""
        try:
            name, fd = await asyncio.wait_for(self.request(), REQUEST_TIMEOUT)
        except Refused as error:
            log.warning("refused %s: %s", self.who, error)
            await self.say("refused", error=str(error))
            return
        try:
            log.info("%s: restoring for %s", name, self.who)
            await self.restore_while_connected(name, fd)
        finally:
            os.close(fd)

    async def request(self) -> tuple[str, int]:
        """The name and the fd that the client sends."""
        await self.readable(self.sock)
        line, fds, _flags, _address = socket.recv_fds(
            self.sock, REQUEST_MAX, FDS_MAX, socket.MSG_CMSG_CLOEXEC
        )
        try:
            if len(fds) != 1 or not line.endswith(b"\n"):
                raise Refused("a request is one line with one fd attached")
            name = requested_name(line)
            check_kind(fds[0])
        except Refused:
            for fd in fds:
                os.close(fd)
            raise
        return name, fds[0]

    async def restore_while_connected(self, name: str, fd: int) -> None:
        """The restore and the wait for the client's end, whichever is over first."""
        restoring = asyncio.ensure_future(self.restore(name, fd))
        disconnected = asyncio.ensure_future(self.disconnected())
        try:
            await asyncio.wait({restoring, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            disconnected.cancel()
            restoring.cancel()
            outcomes = await asyncio.gather(restoring, disconnected, return_exceptions=True)
        if isinstance(outcomes[0], asyncio.CancelledError):
            log.info("%s: cancelled and undone", name)
        elif isinstance(outcomes[0], BaseException):
            raise outcomes[0]

    async def restore(self, name: str, fd: int) -> None:
        """Restore, and tell the client how far it is."""
        output = None if self.daemon.output is None else self.daemon.output / name
        options = RestoreOptions(self.daemon.target, output, timeouts=TIMEOUTS, name=name)
        try:
            async with self.adapter.restoration(fd, options) as restoration:
                async for progress in restoration:
                    await self.say(
                        "progress",
                        phase=progress.phase.value,
                        position=progress.position,
                        total=progress.total,
                        frames=progress.frames,
                    )
                result = await restoration.result()
        except LibxlsrError as error:
            log.warning("%s: %s", name, error)
            await self.say("failed", error=str(error), exit_code=error.exit_code)
        else:
            log.info("%s: restored as %s", name, result.guest.where)
            await self.say("restored", **facts(result))

    async def disconnected(self) -> None:
        """Until the client has closed its socket. Not before: it may have shut down one half."""
        with select.epoll() as hangup:
            hangup.register(self.sock, 0)  # EPOLLHUP comes unasked
            await self.readable(hangup)

    async def readable(self, file: socket.socket | select.epoll) -> None:
        """Until there is something to read, or an end."""
        ready = asyncio.Event()
        self.loop.add_reader(file, ready.set)
        try:
            await ready.wait()
        finally:
            self.loop.remove_reader(file)

    async def say(self, event: str, **facts: object) -> None:
        """Send one line."""
        line = json.dumps({"event": event, **facts}) + "\n"
        await self.loop.sock_sendall(self.sock, line.encode())


def requested_name(line: bytes) -> str:
    """The guest's name in a request. Raises `Refused`."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise Refused("a request is a JSON object") from None
    name = request.get("name") if isinstance(request, dict) else None
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise Refused('a request has a "name" of letters, digits, "_", "-" and "."')
    return name


def check_kind(fd: int) -> None:
    """Refuse an fd on which the client could let a read wait for ever, and this daemon with it."""
    mode = os.fstat(fd).st_mode
    if not any(is_kind(mode) for is_kind in FD_KINDS):
        raise Refused("the fd is of a file, a block device, a pipe or a socket")


def facts(result: RestoreResult) -> dict[str, object]:
    """What a client wants to know of a guest that was restored."""
    guest = result.guest
    return {
        "where": guest.where,
        "domid": guest.domid,
        "type": guest.domain_type,
        "seconds": round(result.seconds, 3),
    }


def peer(sock: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end."""
    pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


def listen(path: Path, mode: int, group: str | None) -> socket.socket:
    """The socket that clients connect to: systemd's, or one that is made at ``path``."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        return socket.socket(fileno=SD_LISTEN_FDS_START)
    remove_left_over(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o777)  # nobody may connect before mode and group are as they shall be
    try:
        listener.bind(str(path))
    finally:
        os.umask(umask)
    if group is not None:
        shutil.chown(path, group=group)
    path.chmod(mode)
    listener.listen()
    return listener


def remove_left_over(path: Path) -> None:
    """Remove a socket on which nobody listens. Raises UsageError for anything else at ``path``."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UsageError(f"{path} is there already, and no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # EAGAIN: so many wait there already
        failure = probe.connect_ex(str(path))
    if failure in (0, errno.EAGAIN):
        raise UsageError(f"another daemon listens on {path}")
    if failure != errno.ECONNREFUSED:
        raise OSError(failure, os.strerror(failure), str(path))
    path.unlink()


async def run(daemon: Daemon, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    serving = asyncio.ensure_future(daemon.serve(listener))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    log.info("listening")
    try:
        await serving
    except asyncio.CancelledError:
        log.info("stopped")
    finally:
        # Nothing is left to be stopped, and asyncio is about to give them their own action back,
        # which is to kill.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))


def main() -> int:
    """Run the daemon."""
    parser = argparse.ArgumentParser(description="restores images for clients of a Unix socket")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--mode", type=lambda text: int(text, 8), default=0o660)
    parser.add_argument("--group", help="who may connect, besides this user")
    parser.add_argument("--target", choices=("image", "xen"), default="image")
    parser.add_argument("--output", type=Path, help="for the target image: where guests go")
    options = parser.parse_args()
    if (options.target == "image") != (options.output is not None):
        parser.error("--output goes with --target image")
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    try:
        listener = listen(options.socket, options.mode, options.group)
    except (LibxlsrError, OSError, LookupError) as error:
        print(f"toolstack_daemon: {error}", file=sys.stderr)
        return 3
    listener.setblocking(False)
    with listener:
        asyncio.run(run(Daemon(options.target, options.output), listener))
    if "LISTEN_PID" not in os.environ:
        options.socket.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
