"""Device models that come up, and those that don't: real processes, xenstore in a dictionary.

tests/xenlab has the same with a real xenstore and a real QEMU.
"""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, TypeVar

import pytest

from libxlsr.domain.config import read_config
from libxlsr.domain.device_model import model
from libxlsr.domain.device_model.emulator_state import StateFile
from libxlsr.domain.device_model.model import DeviceModel
from libxlsr.domain.device_model.program import needs_device_model, program_of
from libxlsr.domain.host import XenHost
from libxlsr.errors import Aborted, LibxlsrError, TargetError, TimedOut
from libxlsr.events import Context
from libxlsr.events.chain import Chain, Done, Wait
from libxlsr.formats import xl
from libxlsr.testing.fake_xen import device_model
from libxlsr.testing.stepping import run_until

from ..hosts import host_below

FAKE = Path(device_model.__file__)
T = TypeVar("T")


class Store:
    """xenstore's nodes, as far as a device model's start takes them."""

    def __init__(self) -> None:
        self.nodes: dict[str, str] = {}

    def read(self, path: str) -> str | None:
        return self.nodes.get(path)

    def write(self, path: str, value: str) -> None:
        self.nodes[path] = value
        above = path.rpartition("/")[0]
        if above and above not in self.nodes:
            self.write(above, "")

    def mkdir(self, path: str) -> None:
        self.write(path, self.nodes.get(path, ""))

    def rm(self, path: str) -> None:
        gone = [name for name in self.nodes if name == path or name.startswith(f"{path}/")]
        for name in gone:
            del self.nodes[name]

    def directory(self, path: str) -> list[str] | None:
        if path not in self.nodes:
            return None
        return [name for name in self.nodes if name.rpartition("/")[0] == path]

    def transact(self, body: Callable[[Store], T]) -> T:
        return body(self)


class Started:
    """One device model, and what its steps came to."""

    def __init__(
        self, ctx: Context, tmp_path: Path, tree: dict[str, Any], start_timeout: float
    ) -> None:
        self.ctx = ctx
        self.store = Store()
        host = self.host = host_below(tmp_path)
        self.errors: list[LibxlsrError | None] = []
        self.stopped: list[LibxlsrError | None] = []
        self.state = StateFile(ctx, 7, host.lib_dir)
        written: list[LibxlsrError | None] = []
        self.state.write(b"QEVM", written.append)
        run_until(ctx, lambda: bool(written))
        self.config = read_config(xl.Config.from_json(tree))
        self.model = DeviceModel(
            ctx,
            host,
            self.store,  # type: ignore[arg-type]
            self.config,
            7,
            self.state,
            start_timeout=start_timeout,
        )
        self.others: list[Done] = []
        """Given once the model is ready: what the steps of others call when they are done."""
        steps = [
            self.model.starting(),
            Wait(self.others.append, lambda: None),
            self.model.resuming(),
        ]
        self.chain = Chain(ctx, steps, self.errors.append, doing="test")
        self.chain.start()

    def wait_until_ready(self) -> None:
        run_until(self.ctx, lambda: bool(self.others or self.errors))

    def wait(self) -> LibxlsrError | None:
        self.wait_until_ready()
        if self.others:
            self.others[0](None)
        run_until(self.ctx, lambda: bool(self.errors))
        return self.errors[0]

    def stop(self) -> None:
        if not self.stopped:
            self.model.stop(self.stopped.append)
            run_until(self.ctx, lambda: bool(self.stopped))


def ended(pid: int) -> bool:
    """Whether the process has; as a zombie it has, too."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


@pytest.fixture
def hvm_tree(tree: dict[str, Any]) -> dict[str, Any]:
    tree["c_info"]["type"] = "hvm"
    tree["b_info"]["type.hvm"] = {"vga": {"kind": "none"}, "vnc": {"passwd": "a secret"}}
    tree["b_info"]["device_model"] = str(FAKE)
    return tree


@pytest.fixture
def start(
    ctx: Context, tmp_path: Path, hvm_tree: dict[str, Any]
) -> Iterator[Callable[[str], Started]]:
    """Starts a device model that goes a given way; stopped at the end, nothing being left."""
    begun: list[Started] = []

    def starting(way: str) -> Started:
        hvm_tree["b_info"]["extra"] = ["-way", way]
        start_timeout = 5.0 if way.startswith("never-") else 60.0
        begun.append(Started(ctx, tmp_path, hvm_tree, start_timeout))
        return begun[0]

    yield starting
    for one in begun:
        one.stop()
        assert one.stopped == [None]
        assert not os.listdir(one.host.run_dir)
        assert not os.listdir(one.host.lib_dir)
        assert os.listdir(one.host.log_dir) == ["qemu-dm-guest.log"]
        assert one.store.directory("/local/domain/0/device-model") is None
        assert one.model.pid is None or ended(one.model.pid)
    assert ctx.registered() == []


Start = Callable[[str], Started]


def test_it_comes_up(start: Start) -> None:
    started = start("well")
    assert started.wait() is None
    assert not started.state.path.exists()
    nodes = started.store.nodes
    home = "/local/domain/7"
    assert nodes[f"{home}/image/device-model-pid"] == str(started.model.pid)
    assert nodes[f"{home}/hvmloader/bios"] == "seabios"
    assert nodes[f"{home}/hvmloader/allow-memory-relocate"] == "0"
    assert nodes[f"{home}/serial/1/tty"] == "/dev/pts/9"
    assert f"{home}/serial/0/tty" not in nodes
    assert nodes[f"{home}/console/vnc-listen"] == "127.0.0.1"
    assert nodes[f"{home}/console/vnc-port"] == "5900"
    assert nodes[f"{home}/console/vnc-pass"] == "a secret"
    assert nodes[f"/vm/{started.config.uuid}/vncpasswd"] == "a secret"
    started.model.check()
    said = json.loads((started.host.log_dir / "qemu-dm-guest.log").read_text().splitlines()[-1])
    assert said == {"password": "a secret"}


def test_it_stays_when_it_is_detached(start: Start, ctx: Context) -> None:
    started = start("well")
    assert started.wait() is None
    alone: list[bool] = []
    started.model.detach(lambda: alone.append(True))
    run_until(ctx, lambda: bool(alone))
    pid = started.model.pid
    assert pid is not None
    assert ctx.registered() == []
    pidfd = os.pidfd_open(pid)  # raises where it has gone
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    select.select([pidfd], [], [])
    os.close(pidfd)


@pytest.mark.parametrize(
    ("way", "says"),
    [
        ("exits", "exited with 3"),
        ("is-killed", "was killed by SIGKILL"),
        ("hangs-up", "exited with 0"),
        ("exits-while-it-reads", "exited with 5"),
        ("hangs-up-while-it-reads", "it hung up"),
        ("rubbish", "something that is not QMP"),
        ("floods", "more than 1048576 bytes at once"),
        ("wrong-state", "state is internal-error"),
        ("refuses-to-go-on", "says: I won't"),
        ("dies-before-it-goes-on", "exited with 4"),
        ("lies-about-vnc", "tells no host of its VNC server"),
    ],
)
def test_it_fails(start: Start, way: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "hung up" not in says:  # how it ended may come late on a busy machine
        monkeypatch.setattr(model, "LAST_WORDS_TIMEOUT", 60.0)
    started = start(way)
    error = started.wait()
    assert isinstance(error, TargetError)
    assert says in str(error)
    assert error.last_log is not None
    assert str(started.host.log_dir) in str(error)


def test_it_ends_while_the_loop_is_busy(start: Start, ctx: Context) -> None:
    started = start("exits")
    run_until(ctx, lambda: started.model._process._supervisor is not None)
    supervisor = started.model._process._supervisor
    assert supervisor is not None
    os.waitid(os.P_PID, supervisor.pid, os.WEXITED | os.WNOWAIT)
    assert "exited with 3" in str(started.wait())


def test_it_hangs_up_while_others_take_their_steps(start: Start, ctx: Context) -> None:
    started = start("hangs-up-when-ready")
    started.wait_until_ready()
    assert any("QMP" in what for what in ctx.registered())
    run_until(ctx, lambda: not any("QMP" in what for what in ctx.registered()))
    with pytest.raises(TargetError, match="it hung up"):
        started.model.check()  # what a restore does at its end, whether its last words are there
    assert "it hung up" in str(started.wait())


@pytest.mark.parametrize("way", ["never-listens", "never-greets", "never-ready"])
def test_it_never_answers(start: Start, way: str) -> None:
    error = start(way).wait()
    assert isinstance(error, TimedOut)
    assert "did not get ready within 5 s" in str(error)


@pytest.mark.parametrize("way", ["never-listens", "never-greets", "never-ready"])
def test_aborted_while_it_starts(start: Start, ctx: Context, way: str) -> None:
    started = start(way)
    reason = Aborted()
    log = started.host.log_dir / "qemu-dm-guest.log"
    run_until(ctx, lambda: log.exists() and bool(log.read_text()))
    started.chain.abort(reason)
    assert started.wait() is reason


def test_it_can_not_be_executed(start: Start, tmp_path: Path, hvm_tree: dict[str, Any]) -> None:
    program = tmp_path / "model"
    program.write_bytes(b"\x7fELF but no more")
    program.chmod(0o700)
    hvm_tree["b_info"]["device_model"] = str(program)
    error = start("not at all").wait()
    assert "can't be started: execve failed: Exec format error" in str(error)


def test_it_is_looked_for_along_path(
    hvm_tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "a-qemu"
    program.touch(0o700)
    monkeypatch.setenv("PATH", f".:{tmp_path}")
    hvm_tree["b_info"]["device_model"] = "a-qemu"
    assert program_of(read_config(xl.Config.from_json(hvm_tree)), XenHost()) == str(program)


@pytest.mark.parametrize("program", ["/no/such/program", "no-such-program", "./python", "/etc"])
def test_it_is_no_program(hvm_tree: dict[str, Any], program: str) -> None:
    hvm_tree["b_info"]["device_model"] = program
    with pytest.raises(TargetError, match="is not a program here"):
        program_of(read_config(xl.Config.from_json(hvm_tree)), XenHost())


def test_who_needs_one(tree: dict[str, Any]) -> None:
    def needs() -> bool:
        return needs_device_model(read_config(xl.Config.from_json(tree)))

    assert not needs()
    tree["vfbs"] = [{}]
    assert needs()
    tree["vfbs"] = []
    tree["disks"] = [{"vdev": "xvda", "backend": "phy", "format": "raw", "pdev_path": "/dev/x"}]
    assert not needs()
    tree["disks"][0].update(backend="qdisk")
    assert needs()
    tree["disks"][0].update(backend_domname="elsewhere")
    assert not needs()
