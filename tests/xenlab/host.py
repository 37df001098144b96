"""A running lab: QEMU with Xen and its dom0 in it, reached over ssh on loopback.

Each lab has a run directory in the cache. The lock file in it is held by QEMU itself through an
inherited descriptor, so that "is it running" has one true answer and a pid in a file is never
mistaken for another process.

Files go in and out through a disk of the machine's, /dev/vdb in dom0, that is the file ``carrier``
in the run directory: dom0 read 20 MB from it in 0.2 s, and took a minute for them over ssh, whose
ciphers are emulated.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from .emulator import (
    CARRIER,
    CARRIER_SIZE,
    CONSOLE_LOG,
    NO_LINK,
    QEMU_LOG,
    State,
    command_line,
    monitor,
    start,
)
from .image import Image, LabError, cache_directory, locked
from .recipe import CARRIER_IN_DOM0, FAILED_LINE, READY_LINE, RECIPES

# On two quiet cores dom0 is ready in half a minute; now and then one hangs early in its boot.
BOOT_SECONDS = 600.0
COMMAND_SECONDS = 300.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.1
CONSOLE_TAIL_LINES = 60
_BLOCK = 1 << 20
_KNOWN = "host.json"

# What ends a boot before its time: Xen's panic, Linux's panic, a dom0 without its toolstack.
_FATAL = ("Panic on CPU", "Kernel panic", "You are in emergency mode", FAILED_LINE)


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


@dataclass
class Host:
    """A Xen host that is up. Made by `boot`, `load` or `running_host`."""

    image: Image
    state: State
    """What it was loaded from or, where `keep_changes`, what it is to become."""
    run_dir: Path
    port: int
    link: str
    """What the second card is connected to, as QEMU's -netdev takes it."""
    kept: bool = False
    """Whether it outlives the process that started it."""
    keep_changes: bool = False
    pid: int = 0
    # QEMU, where it is this process's child; waited for when it has been stopped.
    child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def xen(self) -> str:
        return self.image.recipe.xen

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

    def put(self, source: Path, target: str, *, executable: bool = False) -> None:
        """Copy a file of this machine to the path `target` in dom0."""
        with source.open("rb") as file:
            self._put(file, target, executable)

    def put_bytes(self, data: bytes, target: str, *, executable: bool = False) -> None:
        """Write `data` to the path `target` in dom0."""
        self._put(io.BytesIO(data), target, executable)

    def _put(self, source: IO[bytes], target: str, executable: bool) -> None:
        quoted = shlex.quote(target)
        with locked(self.run_dir / "carrier.lock"), self._carrier.open("r+b") as carrier:
            shutil.copyfileobj(source, carrier, _BLOCK)
            size = carrier.tell()
            carrier.flush()
            if size > CARRIER_SIZE:
                raise LabError(f"{target} is larger than {CARRIER_SIZE} bytes")
            blocks = -(-size // _BLOCK)
            self.run(
                f"mkdir -p $(dirname {quoted}) && rm -f {quoted} &&"
                f" dd if={CARRIER_IN_DOM0} of={quoted} bs={_BLOCK} count={blocks} iflag=direct"
                f" status=none && truncate -s {size} {quoted} &&"
                f" chmod {'755' if executable else '644'} {quoted}"
            )

    def get(self, source: str, target: Path) -> None:
        """Copy the file at the path `source` in dom0 to this machine."""
        quoted = shlex.quote(source)
        with locked(self.run_dir / "carrier.lock"):
            done = self.run(
                f"dd if={quoted} of={CARRIER_IN_DOM0} bs={_BLOCK} conv=sync oflag=direct"
                f" status=none && stat -L -c %s {quoted}"
            )
            with self._carrier.open("rb") as carrier, target.open("wb") as file:
                shutil.copyfileobj(carrier, file, _BLOCK)
                file.truncate(int(done.stdout))

    @property
    def _carrier(self) -> Path:
        return self.run_dir / CARRIER

    @property
    def console(self) -> Path:
        """The log of Xen's console, which is dom0's console too."""
        return self.run_dir / CONSOLE_LOG

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

    def load_again(self) -> None:
        """Put the host back to how it was when it was loaded, whatever has become of it."""
        self._stop()
        with (self.run_dir / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._load(lock)

    def shut_down(self) -> None:
        """Stop QEMU; everything in the lab is lost. Nothing happens when it is down already."""
        self._stop()
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def _load(self, lock: IO[str]) -> None:
        shutil.copy(self.state.console, self.console)
        self._start(lock, "-incoming", "defer")
        with monitor(self.run_dir) as qemu:
            qemu.load(self.state)
        self._start_ssh_master()
        # Time stood still meanwhile.
        self.run(f"date -s @{time.time():.0f}")

    def _boot(self, lock: IO[str]) -> None:
        self._start(lock)
        self._wait_until_ready()
        self._start_ssh_master()

    def _start(self, lock: IO[str], *options: str) -> None:
        with self._carrier.open("wb") as carrier:
            carrier.truncate(CARRIER_SIZE)
        command = command_line(
            self.image,
            self.state,
            self.port,
            keep_changes=self.keep_changes,
            link=self.link,
        )
        self.child = start([*command, *options], self.run_dir, lock, keep=self.kept)
        self.pid = self.child.pid
        known = {
            "xen": self.xen,
            "image": str(self.image.directory),
            "state": str(self.state.directory),
            "port": self.port,
            "link": self.link,
            "pid": self.pid,
        }
        (self.run_dir / _KNOWN).write_text(json.dumps(known))

    def _stop(self) -> None:
        for signum in (signal.SIGTERM, signal.SIGKILL):
            if self._ended(0):
                break
            os.kill(self.pid, signum)
            if self._ended(STOP_SECONDS):
                break
        if self.child is not None:
            self.child.wait()

    def _ended(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.is_up():
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _wait_until_ready(self) -> None:
        assert self.child is not None
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            ended = self.child.poll() is not None
            console = self.console.read_text(errors="replace") if self.console.exists() else ""
            if READY_LINE in console and not ended:
                return
            problem = next((f"the console says {x!r}" for x in _FATAL if x in console), None)
            if ended:
                problem = f"QEMU ended with {self.child.returncode}"
            if problem is None and time.monotonic() >= deadline:
                hung = f"dom0 was not ready after {BOOT_SECONDS:.0f} s"
                raise BootHung(f"Xen {self.xen} did not boot: {hung}\n{self.console_tail()}")
            if problem is not None:
                raise LabError(f"Xen {self.xen} did not boot: {problem}\n{self.console_tail()}")
            time.sleep(POLL_SECONDS)

    def _start_ssh_master(self) -> None:
        """One connection that all commands share; it ends when QEMU does."""
        # That of a QEMU that has only just ended may still be there.
        (self.run_dir / "ssh_master").unlink(missing_ok=True)
        with (self.run_dir / "ssh.log").open("w+") as log:
            result = subprocess.run(
                self.ssh_command("-M", "-N", "-f"),
                cwd=self.run_dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            log.seek(0)
            if result.returncode != 0:
                raise LabError(f"no ssh into dom0: {log.read()}\n{self.console_tail()}")

    def freeze(self) -> None:
        """Stop a host that keeps its changes, and leave its `state` complete."""
        subprocess.run(
            self.ssh_command("-O", "exit"), cwd=self.run_dir, capture_output=True, check=False
        )
        # sshd's processes go, too.
        time.sleep(2)
        with monitor(self.run_dir) as qemu:
            qemu.save(self.state)
        if not self._ended(STOP_SECONDS):
            raise LabError("QEMU does not end")
        shutil.copy(self.console, self.state.console)
        self.shut_down()


def load(image: Image, state: State, *, keep_as: str | None = None, link: str = NO_LINK) -> Host:
    """A host that goes on from a state, which stays as it is.

    With `keep_as` the lab outlives this process and `running_host` finds it by that name; otherwise
    the kernel kills it when the calling thread ends, however it ends.
    """
    return _launched(image, state, Host._load, keep_as=keep_as, link=link)


def load_to_change(image: Image, state: State) -> Host:
    """A host that goes on from a state, and changes it until `Host.freeze` makes it whole again."""
    return _launched(image, state, Host._load, keep_changes=True)


def boot_to_keep(image: Image, state: State) -> Host:
    """A host that is booted, and ready, on the disk of a state that `Host.freeze` completes.

    Raises LabError with the console's end.
    """
    return _launched(image, state, Host._boot, keep_changes=True)


def _launched(
    image: Image,
    state: State,
    how: Callable[[Host, IO[str]], None],
    *,
    keep_as: str | None = None,
    keep_changes: bool = False,
    link: str = NO_LINK,
) -> Host:
    run_dir, lock = _new_run_directory(image.recipe.xen, keep_as)
    shutil.copy(image.ssh_key, run_dir / "ssh_key")
    kept = keep_as is not None
    host = Host(image, state, run_dir, free_port(), link, kept, keep_changes)
    try:
        with lock:
            how(host, lock)
    except BaseException:
        host.shut_down()
        raise
    return host


def running_host(name: str) -> Host | None:
    """The lab that was left up under this name, if it is up."""
    run_dir = _run_directories() / name
    known = run_dir / _KNOWN
    if not known.exists() or not _is_locked(run_dir):
        return None
    facts = json.loads(known.read_text())
    return Host(
        Image(RECIPES[facts["xen"]], Path(facts["image"])),
        State(Path(facts["state"])),
        run_dir,
        facts["port"],
        facts["link"],
        kept=True,
        pid=facts["pid"],
    )


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


def _new_run_directory(xen: str, keep_as: str | None) -> tuple[Path, IO[str]]:
    """A run directory and its lock file, locked. Those whose owner was killed are removed."""
    directories = _run_directories()
    with locked(directories / "lock"):
        for path in directories.iterdir():
            if path.is_dir() and not _is_locked(path):
                shutil.rmtree(path)
        if keep_as is not None:
            run_dir = directories / keep_as
            if run_dir.exists():
                raise LabError(f"the lab {keep_as} is up already")
            run_dir.mkdir()
        else:
            run_dir = Path(tempfile.mkdtemp(dir=directories, prefix=f"{xen}-"))
        lock = (run_dir / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    return run_dir, lock


def free_port() -> int:
    """A port on loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
