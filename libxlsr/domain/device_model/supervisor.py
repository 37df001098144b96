"""The program between libxlsr and a device model: its parent for as long as the restore lasts.

A device model outlives the restore. As a child of the program that restores it would become a
zombie there one day; so this is its parent, as libxl has a process in between, and is gone
afterwards: then init is.

Run as ``python -I -S supervisor.py CONTROL_FD PROGRAM ARGUMENT...``, on its own: it imports nothing
of libxlsr. On the control socket it says ``pid NUMBER``, or ``errno NUMBER`` when the program can't
be executed. With the pid comes a pidfd: when the pid is read, the program may have been reaped, and
the pid be another's. It ends as the program ends, by the same code or signal. Told ``detach`` it
leaves the program alone and ends with 0; when the other side of the socket is closed it kills the
program.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import sys


def main() -> None:
    """Start the program and stay."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    failed_read, failed_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _execute(sys.argv[2:], failed_write)
    os.close(failed_write)
    failure = os.read(failed_read, 16)
    if failure:
        os.waitpid(pid, 0)
        control.send(b"errno " + failure)
        os._exit(1)
    pidfd = os.pidfd_open(pid)
    with contextlib.suppress(OSError):  # the end of file below says it, too
        socket.send_fds(control, [b"pid %d" % pid], [pidfd])
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    ready = dict(poll.poll())
    if pidfd not in ready:
        if _told(control) == b"detach":
            os._exit(0)
        os.kill(pid, signal.SIGKILL)
    _end_like(os.waitpid(pid, 0)[1])


def _execute(argv: list[str], failed: int) -> None:
    try:
        os.setsid()
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        os.execv(argv[0], argv)
    except OSError as error:
        os.write(failed, b"%d" % (error.errno or 0))
    finally:
        os._exit(127)


def _told(control: socket.socket) -> bytes:
    with contextlib.suppress(OSError):
        return control.recv(16)
    return b""


def _end_like(status: int) -> None:
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main()
