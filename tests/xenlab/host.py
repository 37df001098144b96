"""A running lab: QEMU with Xen and its dom0 in it, reached over ssh on loopback.

Each lab has a run directory in the cache. The lock file in it is held by QEMU itself through an
inherited descriptor, so that "is it running" has one true answer and a pid in a file is never
mistaken for another process. The dom0's disk is the image's, opened with ``snapshot=on``: QEMU
writes to a file that it has already unlinked, so nothing has to be thrown away afterwards.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from .image import Image, LabError, built_image, cache_directory, locked
from .recipe import FAILED_LINE, READY_LINE, RECIPES, SHARE_IN_DOM0, SHARE_TAG

# On two quiet cores dom0 is ready in half a minute; now and then one hangs early in its boot.
BOOT_SECONDS = 300.0
BOOT_ATTEMPTS = 3
COMMAND_SECONDS = 300.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.2
CONSOLE_TAIL_LINES = 60
QEMU_LOG = "qemu.log"
PR_SET_PDEATHSIG = 1  # linux/prctl.h

# What ends a boot before its time: Xen's panic, Linux's panic, a dom0 without its toolstack.
_FATAL = ("Panic on CPU", "Kernel panic", "You are in emergency mode", FAILED_LINE)

_XEN_COMMAND_LINE = (
    "console=com1 com1=115200,8n1 dom0_mem=1536M,max:1536M loglvl=info guest_loglvl=all"
    " ucode=no bootscrub=0"
)
_LINUX_COMMAND_LINE = "root=/dev/vda rw console=hvc0 panic=1 net.ifnames=0 mitigations=off quiet"


class BootHung(LabError):
    """Nothing went wrong that could be seen, but dom0 was not ready in time."""


class CommandFailed(LabError):
    """A command in dom0 ended with another exit code than 0."""

    def __init__(self, command: str, result: subprocess.CompletedProcess[str]) -> None:
        super().__init__(
            f"{command!r} in dom0 failed with {result.returncode}\n"
            f"stdout: {result.stdout[-4000:]}\nstderr: {result.stderr[-4000:]}"
        )
        self.result = result


@dataclass(frozen=True)
class Host:
    """A Xen host that is up. Made by `boot` or `running_host`."""

    xen: str
    image_digest: str
    port: int
    pid: int
    run_dir: Path
    # QEMU, where it is this process's child; waited for when it has been stopped.
    child: subprocess.Popen[bytes] | None = field(default=None, repr=False, compare=False)

    def run(
        self, command: str, *, check: bool = True, timeout: float = COMMAND_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command in dom0 as root.

        Raises CommandFailed for an exit code other than 0 (unless `check` is false), and LabError
        when it takes longer than `timeout` seconds or the host has gone.
        """
        try:
            result = subprocess.run(
                [*self.ssh_command(), command],
                cwd=self.run_dir,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(
                f"{command!r} in dom0 took longer than {timeout:.0f} s\n"
                f"stdout: {error.stdout!r}\nstderr: {error.stderr!r}\n{self.console_tail()}"
            ) from None
        if result.returncode == 255 and not self.is_up():
            raise LabError(f"the lab went down during {command!r}\n{self.console_tail()}")
        if check and result.returncode != 0:
            raise CommandFailed(command, result)
        return result

    def ssh_command(self, *options: str) -> list[str]:
        """The ssh command line up to the host; to be run with `run_dir` as working directory."""
        return [
            "ssh",
            *("-F", "none", "-i", "ssh_key", "-p", str(self.port)),
            *("-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes"),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", "ControlPath=ssh_master", "-o", "ConnectTimeout=60"),
            *options,
            "root@127.0.0.1",
        ]

    def run_attached(self, command: str) -> int:
        """Run a shell command in dom0 with our stdin, stdout and stderr; returns its exit code."""
        return subprocess.run([*self.ssh_command(), command], cwd=self.run_dir).returncode

    def shell(self) -> int:
        """An interactive shell in dom0; returns its exit code."""
        return subprocess.run(self.ssh_command("-t"), cwd=self.run_dir).returncode

    @property
    def share(self) -> Path:
        """A directory here that is SHARE_IN_DOM0 in dom0, for both sides to read and write."""
        return self.run_dir / "share"

    def put(self, source: Path, target: str, *, executable: bool = False) -> None:
        """Copy a file of this machine to the path `target` in dom0."""
        with tempfile.TemporaryDirectory(dir=self.share) as carrier:
            shutil.copyfile(source, Path(carrier) / "file")
            mode = "755" if executable else "644"
            inside = f"{SHARE_IN_DOM0}/{Path(carrier).name}/file"
            self.run(f"install -D -m {mode} '{inside}' '{target}'")

    def put_bytes(self, data: bytes, target: str, *, executable: bool = False) -> None:
        """Write `data` to the path `target` in dom0."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            self.put(Path(file.name), target, executable=executable)

    def get(self, source: str, target: Path) -> None:
        """Copy the file at the path `source` in dom0 to this machine."""
        with tempfile.TemporaryDirectory(dir=self.share) as carrier:
            inside = f"{SHARE_IN_DOM0}/{Path(carrier).name}/file"
            self.run(f"cp '{source}' '{inside}'")
            shutil.copyfile(Path(carrier) / "file", target)

    @property
    def console(self) -> Path:
        """The log of Xen's console, which is dom0's console too."""
        return self.run_dir / "console.log"

    @property
    def emulator_log(self) -> Path:
        """What QEMU itself wrote."""
        return self.run_dir / QEMU_LOG

    def console_tail(self) -> str:
        """The last lines on the console and all that QEMU has said, under headings."""
        console = self.console.read_text(errors="replace") if self.console.exists() else ""
        lines = console.splitlines()[-CONSOLE_TAIL_LINES:]
        said = self.emulator_log.read_text(errors="replace").splitlines()
        return "\n".join(["--- the end of the console:", *lines, "--- QEMU:", *said])

    def is_up(self) -> bool:
        return _is_locked(self.run_dir)

    @contextmanager
    def claimed(self) -> Iterator[bool]:
        """Whether the host is this caller's alone while the context lasts."""
        with (self.run_dir / "claim").open("w") as claim:
            try:
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def shut_down(self) -> None:
        """Stop QEMU; everything in the lab is lost. Nothing happens when it is down already."""
        for signum in (signal.SIGTERM, signal.SIGKILL):
            if self._ended(0):
                break
            os.kill(self.pid, signum)
            if self._ended(STOP_SECONDS):
                break
        if self.child is not None:
            self.child.wait()
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def _ended(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.is_up():
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True


def running_host(xen: str) -> Host | None:
    """The lab that `boot(keep=True)` left up for this release of Xen, if it is up."""
    run_dir = _run_directories() / xen
    state = run_dir / "state.json"
    if not state.exists() or not _is_locked(run_dir):
        return None
    return Host(run_dir=run_dir, **json.loads(state.read_text()))


def boot(xen: str, *, keep: bool = False) -> Host:
    """Boot a lab and wait until its toolstack works. Raises LabError with the console's end.

    With `keep` the lab outlives this process and `running_host` finds it; otherwise the kernel
    kills it when the calling thread ends, however it ends.
    """
    image = built_image(RECIPES[xen])
    for _ in range(BOOT_ATTEMPTS - 1):
        try:
            return _boot_once(image, keep)
        except BootHung as error:
            print(f"xenlab: trying again: {error}", file=sys.stderr)
    return _boot_once(image, keep)


def _boot_once(image: Image, keep: bool) -> Host:
    xen = image.recipe.xen
    run_dir, lock = _new_run_directory(xen, keep)
    (run_dir / "share").mkdir()
    shutil.copy(image.ssh_key, run_dir / "ssh_key")
    port = _free_port()
    with lock, (run_dir / QEMU_LOG).open("w") as log:
        qemu = subprocess.Popen(
            _qemu(image, port),
            cwd=run_dir,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[lock.fileno()],
            start_new_session=True,
            preexec_fn=None if keep else _die_with_parent(),
        )
    host = Host(xen, image.recipe.digest, port, qemu.pid, run_dir, qemu)
    try:
        _wait_until_ready(host, qemu)
        _start_ssh_master(host)
    except BaseException:
        host.shut_down()
        raise
    state = {"xen": xen, "image_digest": host.image_digest, "port": port, "pid": qemu.pid}
    (run_dir / "state.json").write_text(json.dumps(state))
    return host


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


def _qemu(image: Image, port: int) -> list[str]:
    """QEMU's command line; paths are relative to the run directory where they can be.

    The CPU model is the one that works: EPYC and max crash dom0 early, Opteron_G5 hangs. Whatever
    /dev/kvm says, TCG is used: a virtual machine's KVM often can't run Xen.
    """
    module_arguments = f"{image.kernel} {_LINUX_COMMAND_LINE},{image.initramfs}"
    return [
        "qemu-system-x86_64",
        *("-accel", "tcg,thread=multi", "-machine", "q35", "-cpu", "qemu64,+svm,+npt"),
        *("-smp", "2", "-m", "6G", "-display", "none", "-no-reboot"),
        *("-serial", "file:console.log", "-monitor", "none"),
        *("-kernel", str(image.hypervisor), "-append", _XEN_COMMAND_LINE),
        *("-initrd", module_arguments),
        "-drive",
        f"file={image.disk},format=raw,if=virtio,snapshot=on,cache=unsafe",
        "-nic",
        f"user,model=virtio-net-pci,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22",
        "-virtfs",
        f"local,path=share,mount_tag={SHARE_TAG},security_model=none",
    ]


def _wait_until_ready(host: Host, qemu: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        ended = qemu.poll() is not None
        console = host.console.read_text(errors="replace") if host.console.exists() else ""
        if READY_LINE in console and not ended:
            return
        problem = next((f"the console says {text!r}" for text in _FATAL if text in console), None)
        if ended:
            problem = f"QEMU ended with {qemu.returncode}"
        if problem is None and time.monotonic() >= deadline:
            hung = f"dom0 was not ready after {BOOT_SECONDS:.0f} s"
            raise BootHung(f"Xen {host.xen} did not boot: {hung}\n{host.console_tail()}")
        if problem is not None:
            raise LabError(f"Xen {host.xen} did not boot: {problem}\n{host.console_tail()}")
        time.sleep(POLL_SECONDS)


def _start_ssh_master(host: Host) -> None:
    """One connection that all commands share; it ends when QEMU does."""
    with (host.run_dir / "ssh.log").open("w+") as log:
        result = subprocess.run(
            host.ssh_command("-M", "-N", "-f"),
            cwd=host.run_dir,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.seek(0)
        if result.returncode != 0:
            raise LabError(f"no ssh into dom0: {log.read()}\n{host.console_tail()}")


def _run_directories() -> Path:
    directory = cache_directory() / "run"
    directory.mkdir(exist_ok=True)
    return directory


def _is_locked(run_dir: Path) -> bool:
    try:
        with (run_dir / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _new_run_directory(xen: str, keep: bool) -> tuple[Path, IO[str]]:
    """A run directory and its lock file, locked. Those whose owner was killed are removed."""
    directories = _run_directories()
    with locked(directories / "lock"):
        for path in directories.iterdir():
            if path.is_dir() and not _is_locked(path):
                shutil.rmtree(path)
        if keep:
            run_dir = directories / xen
            if run_dir.exists():
                raise LabError(f"a lab with Xen {xen} is up already")
            run_dir.mkdir()
        else:
            run_dir = Path(tempfile.mkdtemp(dir=directories, prefix=f"{xen}-"))
        lock = (run_dir / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    return run_dir, lock


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
