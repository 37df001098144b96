"""QEMU with a Xen host in it: its command line, its monitor, and its state in files.

A machine's state is three files: ``ram``, which QEMU maps as the machine's memory, ``state``, what
QEMU writes of all devices when it migrates (capability x-ignore-shared: the memory stays where it
is), and the disk. Who loads them maps the memory privately and opens the disk with
``snapshot=on``: both stay as they are, any number of machines start from them at once, and there is
nothing to read but what a machine comes to use.
"""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .image import Image, LabError

CONSOLE_LOG = "console.log"
QEMU_LOG = "qemu.log"
MONITOR = "monitor"
CARRIER = "carrier"
CARRIER_SIZE = 4 << 30
MEMORY, DOM0_MEMORY = 6144, 1536  # MiB
LINK = "link"
NO_LINK = f"hubport,id={LINK},hubid=0"
"""What the second network card is connected to where there is no other host: nothing."""
POLL_SECONDS = 0.1
MONITOR_SECONDS = 120.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h
_KEEP_MEMORY = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}


@dataclass(frozen=True)
class State:
    """A machine's state in the files of a directory."""

    directory: Path

    @property
    def ram(self) -> Path:
        return self.directory / "ram"

    @property
    def devices(self) -> Path:
        return self.directory / "state"

    @property
    def disk(self) -> Path:
        return self.directory / "disk.qcow2"

    @property
    def console(self) -> Path:
        """What had been on the console by then."""
        return self.directory / CONSOLE_LOG


def qemu_version() -> str:
    """The version of this machine's QEMU; no other one can load what it has saved."""
    said = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True)
    return said.stdout.splitlines()[0]


def command_line(
    image: Image, state: State, port: int, *, keep_changes: bool, link: str
) -> list[str]:
    """QEMU's command line, to be run in the run directory.

    The machine has two network cards: eth0 for ssh, eth1 for `link`, a -netdev with the id LINK.

    The CPU model is the one that works: EPYC and max crash dom0 early, Opteron_G5 hangs. Whatever
    /dev/kvm says, TCG is used: a virtual machine's KVM often can't run Xen.
    """
    xen = (
        f"console=com1 com1=115200,8n1 dom0_mem={DOM0_MEMORY}M,max:{DOM0_MEMORY}M"
        " loglvl=info guest_loglvl=all ucode=no bootscrub=0"
    )
    linux = "root=/dev/vda rw console=hvc0 panic=1 net.ifnames=0 mitigations=off quiet"
    share, snapshot = ("on", "off") if keep_changes else ("off", "on")
    memory = f"memory-backend-file,id=ram,size={MEMORY}M,mem-path={state.ram},share={share}"
    user = f"user,id=ssh,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"
    card = "virtio-net-pci,romfile=,netdev="
    return [
        "qemu-system-x86_64",
        *("-accel", "tcg,thread=multi", "-machine", "q35,memory-backend=ram"),
        *("-cpu", "qemu64,+svm,+npt", "-smp", "2"),
        *("-m", f"{MEMORY}M", "-object", memory),
        *("-nodefaults", "-display", "none", "-no-reboot"),
        *("-chardev", f"file,id=console,path={CONSOLE_LOG},append=on"),
        *("-serial", "chardev:console", "-qmp", f"unix:{MONITOR},server=on,wait=off"),
        *("-kernel", str(image.hypervisor), "-append", xen),
        *("-initrd", f"{image.kernel} {linux},{image.initramfs}"),
        "-drive",
        f"file={state.disk},format=qcow2,if=virtio,snapshot={snapshot},cache=unsafe",
        *("-drive", f"file={CARRIER},format=raw,if=virtio"),
        *("-netdev", user, "-device", f"{card}ssh"),
        *("-netdev", link, "-device", f"{card}{LINK}"),
    ]


def start(
    command: list[str], run_dir: Path, lock: IO[str], *, keep: bool
) -> subprocess.Popen[bytes]:
    """Start QEMU in its run directory; it holds the lock as long as it runs.

    Without `keep` the kernel kills it when the calling thread ends, however that ends.
    """
    with (run_dir / QEMU_LOG).open("w") as log:
        return subprocess.Popen(
            command,
            cwd=run_dir,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[lock.fileno()],
            start_new_session=True,
            preexec_fn=None if keep else _die_with_parent(),
        )


def _die_with_parent() -> Callable[[], None]:
    """What a child runs before exec to be killed when the calling thread ends (prctl(2)).

    setpriv(1) would do the same too late: after the exec that Popen waits for.
    """
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask_for_death_signal() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    return ask_for_death_signal


class Monitor:
    """QEMU's monitor: QMP on a socket in the run directory."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._answer()  # the greeting
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: Any) -> Any:
        """Execute a command; what it returns. Raises LabError when it fails."""
        request = {"execute": command, "arguments": arguments}
        self._stream.write(json.dumps(request).encode() + b"\n")
        answer = self._answer()
        if "error" in answer:
            raise LabError(f"QEMU refuses {command}: {answer['error']['desc']}")
        return answer["return"]

    def _answer(self) -> dict[str, Any]:
        while True:
            line = self._stream.readline()
            if not line:
                raise LabError("QEMU has gone")
            answer: dict[str, Any] = json.loads(line)
            if "event" not in answer:
                return answer

    def connect_link(self, connected: bool) -> None:
        """Plug the cable of the second network card in, or pull it; the guest sees that."""
        self.ask("set_link", name=LINK, up=connected)

    def load(self, state: State) -> None:
        """Let a machine that was started to wait for it go on from a state."""
        self.ask("migrate-set-capabilities", **_KEEP_MEMORY)
        self.ask("migrate-incoming", uri=f"exec:cat {shlex.quote(str(state.devices))}")
        self._wait_for("query-status", "running")

    def save(self, state: State) -> None:
        """Write the state of the devices; QEMU ends. Memory and disk are in their files then."""
        self.ask("migrate-set-capabilities", **_KEEP_MEMORY)
        self.ask("migrate", uri=f"exec:cat >{shlex.quote(str(state.devices))}")
        self._wait_for("query-migrate", "completed")
        self.ask("quit")

    def _wait_for(self, query: str, status: str) -> None:
        deadline = time.monotonic() + MONITOR_SECONDS
        while (now := self.ask(query).get("status")) != status:
            if now == "failed" or time.monotonic() >= deadline:
                raise LabError(f"QEMU is {now}, not {status}")
            time.sleep(POLL_SECONDS)


@contextmanager
def monitor(run_dir: Path) -> Iterator[Monitor]:
    """The monitor of the QEMU in this run directory, which may just have been started."""
    directory = os.open(run_dir, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(MONITOR_SECONDS)
            # A socket's path has no more than 107 bytes.
            _connect(sock, f"/proc/self/fd/{directory}/{MONITOR}")
            with sock.makefile("rwb", buffering=0) as stream:
                yield Monitor(stream)  # type: ignore[arg-type]
    finally:
        os.close(directory)


def _connect(sock: socket.socket, path: str) -> None:
    deadline = time.monotonic() + MONITOR_SECONDS
    while True:
        try:
            sock.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() >= deadline:
                raise LabError("QEMU opens no monitor") from None
            time.sleep(POLL_SECONDS)
        else:
            return
