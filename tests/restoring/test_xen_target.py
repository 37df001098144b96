"""Restores into a Xen host that is made of dictionaries; their children are real."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from libxlsr.domain import create, preflight
from libxlsr.domain.config import DomainConfig
from libxlsr.domain.create import BuildState
from libxlsr.domain.devices import destruction
from libxlsr.domain.host import XenHost
from libxlsr.domain.save_helper import parent
from libxlsr.errors import LibxlsrError, TargetError
from libxlsr.events import Context
from libxlsr.formats import xl
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.target import CheckpointDone, ImageDescription, LibxcOutcome
from libxlsr.restoring.timeouts import Timeouts
from libxlsr.restoring.xen_target import XenTarget
from libxlsr.stream.libxc_stream import LibxcStream
from libxlsr.testing.stepping import run_until

from ..domain.conftest import image_config, tree
from ..domain.fake_host import FakeXenctrl, FakeXenstore
from ..helper.unkillable import unkillable

__all__ = ["image_config", "tree"]
"""Fixtures."""

NEW_UUID = [("uuid", "13b086ae-4a23-480c-a9b5-26f262d40000")]


class Hooks:
    """A restore that asks for nothing, and notes what it is told."""

    timeouts = Timeouts()

    def __init__(self) -> None:
        self.said: list[str] = []

    def progress(self, counters: Mapping[str, int]) -> None:
        pass

    def log(self, level: int, text: str) -> None:
        self.said.append(text)

    def checkpoint(self, consumed: int, done: CheckpointDone) -> None:
        done(CheckpointReply.SUCCESS, 0)


class Host(XenHost):
    """What the targets are in."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.xen = FakeXenctrl()
        self.store = FakeXenstore()

    def require_root(self) -> None:
        pass

    def open_xenctrl(self) -> Any:
        return self.xen

    def open_xenstore(self) -> Any:
        return self.store

    def create_domain(
        self, _xenctrl: object, _xenstore: object, config: DomainConfig, _run_dir: Path
    ) -> int:
        return self.xen.create(config.uuid)

    @staticmethod
    def set_up_domain(
        _xenctrl: object, _xenstore: object, _config: DomainConfig, domid: int
    ) -> BuildState:
        return BuildState(domid, store_port=1, store_domid=0, console_port=2, console_domid=0)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path)
    for directory in (host.run_dir, host.lib_dir, host.lock_file.parent):
        directory.mkdir(parents=True)
    monkeypatch.setattr(parent, "WORKER", "tests.domain.waiting_worker")
    monkeypatch.setattr(create, "create_domain", host.create_domain)
    monkeypatch.setattr(create, "set_up_domain", host.set_up_domain)
    monkeypatch.setattr(create, "set_scheduling", lambda *_args: None)
    return host


class Running:
    """One restore, call by call."""

    def __init__(
        self,
        ctx: Context,
        host: XenHost,
        config: xl.Config,
        changes: list[tuple[str, str]],
        *,
        balloon: bool = False,
    ) -> None:
        self.ctx = ctx
        self.target = XenTarget(ctx, RestoreOptions(overrides=changes, balloon=balloon), host)
        self.hooks = Hooks()
        self.prepared: list[LibxlsrError | None] = []
        self.read: list[LibxlsrError | None] = []
        self.target.prepare(ImageDescription(config, None), self.hooks, self.prepared.append)

    def go_on(self, stream: BinaryIO) -> None:
        def done(_outcome: LibxcOutcome | None, error: LibxlsrError | None) -> None:
            self.read.append(error)

        self.target.restore_libxc(LibxcStream(stream.fileno(), 0), done)

    def abort(self) -> None:
        self.target.abort(TargetError("enough"))
        run_until(self.ctx, lambda: bool(self.read))

    def roll_back(self) -> LibxlsrError | None:
        undone: list[LibxlsrError | None] = []
        self.target.rollback(undone.append)
        run_until(self.ctx, lambda: bool(undone))
        return undone[0]


@pytest.fixture
def stream(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("image") / "libxc"
    path.write_bytes(bytes(64))
    with path.open("rb") as file:
        yield file


def both(
    ctx: Context, host: Host, config: xl.Config, changes: list[tuple[str, str]]
) -> tuple[Running, Running]:
    """Two restores of one image whose preparations overlap, the second with changes."""
    first, second = Running(ctx, host, config, []), Running(ctx, host, config, changes)
    run_until(ctx, lambda: bool(first.prepared and second.prepared))
    return first, second


def test_an_abort_right_behind_prepare(ctx: Context, host: Host, image_config: xl.Config) -> None:
    restore, reason = Running(ctx, host, image_config, []), TargetError("enough")
    restore.target.abort(reason)
    run_until(ctx, lambda: bool(restore.prepared))
    assert restore.prepared == [reason]
    assert not host.xen.by_id
    assert restore.roll_back() is None


def test_of_two_with_one_uuid_one_gets_no_domain(
    ctx: Context, host: Host, image_config: xl.Config
) -> None:
    first, second = both(ctx, host, image_config, [("name", "other")])
    assert first.prepared == [None]
    assert "domain 1 has the UUID" in str(second.prepared[0])
    assert list(host.xen.by_id) == [1]
    for restore in (second, first):
        assert restore.roll_back() is None
    assert not host.xen.by_id


def test_the_one_that_loses_its_name_leaves_the_others_nodes_and_files(
    ctx: Context, host: Host, image_config: xl.Config, stream: BinaryIO
) -> None:
    first, second = both(ctx, host, image_config, NEW_UUID)
    assert (first.prepared, second.prepared) == ([None], [None])
    first.go_on(stream)
    before = dict(host.store.values), set(host.lib_dir.iterdir())
    assert len(before[1]) == 1
    second.go_on(stream)
    run_until(ctx, lambda: bool(second.read))
    assert "domain 1 has the name guest already" in str(second.read[0])
    assert second.roll_back() is None
    assert (host.store.values, set(host.lib_dir.iterdir())) == before
    assert list(host.xen.by_id) == [1]
    first.abort()
    assert first.roll_back() is None
    assert not host.store.below("/vm/13b086ae-4a23-480c-a9b5-26f262d4c7be")
    assert not list(host.lib_dir.iterdir())


def test_a_uuid_that_was_taken_while_dom0_was_ballooned(
    ctx: Context, host: Host, image_config: xl.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(*_args: object, **_kwargs: object) -> None:
        host.xen.create(uuid.UUID(image_config.uuid))

    monkeypatch.setattr(preflight, "check", check)
    restore = Running(ctx, host, image_config, [])
    run_until(ctx, lambda: bool(restore.prepared))
    assert "domain 1 has the UUID" in str(restore.prepared[0])
    assert restore.roll_back() is None
    assert list(host.xen.by_id) == [1]


def test_a_domain_that_xen_does_not_tell_of_is_destroyed(
    ctx: Context, host: Host, image_config: xl.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libxlsr.domain.destruction.DESTROY_TIMEOUT", 0.0)
    restore = Running(ctx, host, image_config, [])
    run_until(ctx, lambda: bool(restore.prepared))
    host.xen.fail_info = TargetError("could not ask for domain 1", errno=errno.EFAULT)
    error = restore.roll_back()
    assert not host.xen.by_id
    assert str(error).startswith("could not ask for domain 1")


def test_an_error_that_passes_is_none(ctx: Context, host: Host, image_config: xl.Config) -> None:
    restore = Running(ctx, host, image_config, [])
    run_until(ctx, lambda: bool(restore.prepared))
    answers = iter([TargetError("not now"), TargetError("not now")])

    class Passing(FakeXenctrl):
        def domain_info(self, domid: int) -> Any:
            error = next(answers, None)
            if error is not None:
                raise error
            return self.by_id.get(domid)

    host.xen.__class__ = Passing
    assert restore.roll_back() is None
    assert not host.xen.by_id


@pytest.mark.parametrize("worker", ["destroying_worker", "no_such_worker"])
def test_a_large_domain_is_destroyed_in_a_child(
    ctx: Context,
    host: Host,
    image_config: xl.Config,
    monkeypatch: pytest.MonkeyPatch,
    worker: str,
) -> None:
    """And by the loop, where the child can't."""
    monkeypatch.setattr(destruction, "DESTROY_WORKER", f"tests.domain.devices.{worker}")
    restore = Running(ctx, host, image_config, [])
    run_until(ctx, lambda: bool(restore.prepared))
    host.xen.by_id[1] = host.xen.by_id[1]._replace(total_bytes=1 << 30)
    assert restore.roll_back() is None
    assert ("1: destroyed" in restore.hooks.said) is (worker == "destroying_worker")
    assert not host.xen.by_id


def test_a_helper_that_can_not_be_killed_is_named_and_the_rest_undone(
    ctx: Context, host: Host, image_config: xl.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore = Running(ctx, host, image_config, [])
    run_until(ctx, lambda: bool(restore.prepared))
    pid = restore.target.helper_pid
    with unkillable(monkeypatch):
        error = restore.roll_back()
    assert f"process {pid} does not end" in str(error)
    assert not host.xen.by_id
    run_until(ctx, lambda: not ctx.registered())


def test_one_that_may_balloon_dom0_keeps_others_from_counting_memory(
    ctx: Context,
    host: Host,
    image_config: xl.Config,
) -> None:
    first = Running(ctx, host, image_config, [], balloon=True)
    run_until(ctx, lambda: bool(first.prepared))
    assert first.prepared == [None]
    changes = [("name", "other"), ("uuid", "new")]
    second = Running(ctx, host, image_config, changes, balloon=True)
    third = Running(ctx, host, image_config, [("name", "third"), ("uuid", "new")])
    run_until(ctx, lambda: bool(third.prepared))  # has nothing to do with the lock
    assert (second.prepared, third.prepared) == ([], [None])
    assert first.roll_back() is None
    run_until(ctx, lambda: bool(second.prepared))
    assert second.prepared == [None]
    for restore in (second, third):
        assert restore.roll_back() is None
    assert not host.xen.by_id
