"""Restores into a Xen domain on a fake host: what is there afterwards, what stands in the way.

Where a process is what is shown (a helper that dies, a device model that hangs) it is a real one.
``test_every_step`` has each step failing.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from libxlsr.domain.save_helper.spare import SpareHelper
from libxlsr.errors import Aborted, LibxlsrError, StreamError, TargetError, TimedOut, UsageError
from libxlsr.events import Ao, Context
from libxlsr.formats import xl
from libxlsr.formats.libxc import RecordType
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import Progress, RestoreResult
from libxlsr.restoring.target import ImageDescription
from libxlsr.restoring.timeouts import Timeouts
from libxlsr.restoring.xen_target import XenTarget
from libxlsr.testing.builder import UUID, StreamBuilder, config_json
from libxlsr.testing.clock import FakeClock
from libxlsr.testing.conformance import Driver
from libxlsr.testing.fake_xen import FakeXenHost, XenFailure
from libxlsr.testing.fake_xen.state import CallMade
from libxlsr.testing.stepping import run_until, run_until_idle

from ..helper.unkillable import unkillable

HOME, VM = "/local/domain/1", f"/vm/{UUID}"
OTHER_UUID = [("uuid", "13b086ae-4a23-480c-a9b5-26f262d40000")]


@pytest.fixture
def xen() -> Iterator[FakeXenHost]:
    """A host without processes."""
    with FakeXenHost(processes=False) as host:
        yield host


@pytest.fixture
def real() -> Iterator[FakeXenHost]:
    """A host with them."""
    with FakeXenHost() as host:
        yield host


class Restoring:
    """One restore of a stream."""

    def __init__(
        self,
        ctx: Context,
        xen: FakeXenHost,
        stream: StreamBuilder,
        *,
        options: RestoreOptions | None = None,
        on_progress: Callable[[Progress], object] | None = None,
    ) -> None:
        self.ctx, self.xen = ctx, xen
        self.file = os.memfd_create("image")
        stream.write_to(self.file)
        os.lseek(self.file, 0, os.SEEK_SET)
        options = dataclasses.replace(options or RestoreOptions(), to_eof=True)
        target = XenTarget(ctx, options, xen)
        self.ao: Ao[RestoreResult] = restore_ao(
            ctx, self.file, options, target=target, on_progress=on_progress
        )

    def result(self) -> RestoreResult:
        """Raises the restore's error, with nothing left."""
        run_until(self.ctx, lambda: self.ao.done)
        os.close(self.file)
        assert self.ctx.registered() == []
        try:
            return self.ao.result()
        except LibxlsrError:
            assert self.xen.left_behind() == []
            raise

    def error(self) -> LibxlsrError:
        with pytest.raises(LibxlsrError) as caught:
            self.result()
        return caught.value


def with_config(guest: str, change: Callable[[dict[str, Any]], object]) -> StreamBuilder:
    config = config_json(guest, 16)
    change(config)
    return StreamBuilder(guest, config=config)


def overrides(*pairs: tuple[str, str], **options: Any) -> RestoreOptions:
    return RestoreOptions(overrides=pairs, **options)


# What is there afterwards.


def test_an_hvm_guest(ctx: Context, xen: FakeXenHost) -> None:
    keys = [("physmap/a0000/size", "20000")]
    restored = Restoring(ctx, xen, StreamBuilder("hvm", xenstore=keys)).result().guest
    assert (restored.domid, restored.name, restored.domain_type) == (1, "guest", "hvm")
    assert restored.xen_version == "4.17.5"
    (domain,) = xen.domains
    assert domain.running
    assert str(domain.uuid) == UUID
    assert domain.pages == 16
    assert domain.max_pages == (64 + 1024) // 4
    assert domain.paging_bytes == 1 << 20
    assert domain.cpu_policy == "set"
    params = domain.hvm_params
    store_port, console_port = int(xen.node(f"{HOME}/store/port") or 0), params[18]
    assert domain.unbound_ports == {store_port: 0, console_port: 0}
    assert xen.xenstored.introduced == {1: (params[1], params[2])}
    assert params[2] == store_port
    assert xen.node(f"{HOME}/console/port") == str(console_port)
    assert xen.node(f"{HOME}/console/ring-ref") == str(params[17])
    assert xen.node(f"{HOME}/console/tty") == "/dev/pts/1"
    assert xen.node(f"{HOME}/name") == "guest"
    assert xen.node(f"{VM}/uuid") == UUID
    assert xen.node("/libxl/1/type") == "hvm"
    assert xen.node("/local/domain/0/device-model/1/physmap/a0000/size") == "20000"
    assert xen.node(f"{HOME}/serial/1/tty") == "/dev/pts/9"
    asked = [call.about for call in xen.calls if call.name == "qmp"]
    assert asked == ["qmp_capabilities", "query-status", "query-chardev", "query-vnc", "cont"]
    files = {path.name for path in xen.lib_dir.iterdir()}
    assert files == {f"userdata-d.1.{UUID}.libxl-json"}
    last = [call.name for call in xen.calls if call.name.startswith("xc_")][-1]
    assert last == "xc_domain_unpause"


def test_the_device_model_reads_the_streams_state(ctx: Context, xen: FakeXenHost) -> None:
    stream = StreamBuilder("hvm", emulator=b"QEVM and so on")
    Restoring(ctx, xen, stream).result()
    assert [model.incoming for model in xen.device_models_run] == [b"QEVM and so on"]


def test_permissions(ctx: Context, xen: FakeXenHost) -> None:
    Restoring(ctx, xen, StreamBuilder("pvh")).result()

    def of(path: str) -> list[tuple[int, int]]:
        return list(xen.xenstored.nodes[path].permissions)

    none, read = 0, 1
    assert of(HOME) == of(f"{HOME}/memory/target") == [(0, none), (1, read)]
    assert of("/libxl/1") == [(0, none)]
    assert of(f"{HOME}/data") == of(f"{HOME}/control/shutdown") == [(1, none)]
    assert of(f"{HOME}/console") == of(f"{HOME}/console/tty") == [(0, none), (1, read)]


@pytest.mark.parametrize(("guest", "limit"), [("pv", 64), ("pvh", None)])
def test_guests_without_a_device_model(
    ctx: Context, xen: FakeXenHost, guest: str, limit: int | None
) -> None:
    Restoring(ctx, xen, StreamBuilder(guest)).result()
    (domain,) = xen.domains
    assert (domain.running, domain.hvm) == (True, guest == "pvh")
    assert domain.memmap_limit_kb == limit
    assert not [call for call in xen.calls if call.name == "qmp"]


def test_with_the_processes_of_a_real_host(ctx: Context, real: FakeXenHost) -> None:
    seen: list[Progress] = []
    Restoring(ctx, real, StreamBuilder("hvm"), on_progress=seen.append).result()
    assert real.domains[0].running
    pid = int(real.node(f"{HOME}/image/device-model-pid") or 0)
    assert f"process {pid}" in real.left_behind()
    assert real.state.handles == 0
    assert (real.log_dir / "qemu-dm-guest.log").read_text() == "no display\n"


def test_a_guest_that_stays_paused(ctx: Context, xen: FakeXenHost) -> None:
    Restoring(ctx, xen, StreamBuilder("hvm"), options=RestoreOptions(paused=True)).result()
    assert not xen.domains[0].running
    assert "cont" not in [call.about for call in xen.calls if call.name == "qmp"]


@pytest.mark.parametrize("guest", ["pv", "hvm"])
def test_a_stream_from_before_policies(ctx: Context, xen: FakeXenHost, guest: str) -> None:
    Restoring(ctx, xen, StreamBuilder(guest, version=2)).result()
    assert xen.domains[0].cpu_policy == "derived"


def test_devices_in_the_order_of_libxl(ctx: Context, xen: FakeXenHost) -> None:
    disk = {"pdev_path": __file__, "format": "raw", "readwrite": 1}
    nic = {"devid": 3, "mac": "00:16:3e:00:00:01", "bridge": "xenbr0"}

    def add(config: dict[str, Any]) -> None:
        config["disks"] = [
            {**disk, "vdev": "xvdb", "backend": "qdisk"},
            {**disk, "vdev": "xvda", "backend": "phy"},
        ]
        config["nics"] = [nic]

    Restoring(ctx, xen, with_config("hvm", add)).result()
    about = ("spawn", "libxl_device_disk_add", "libxl_device_nic_add")
    order = [call.name if call.name != "spawn" else call.about for call in xen.calls]
    order = [what for what in order if what in about or what == "the device model"]
    first, *rest = order
    assert first == "libxl_device_disk_add"
    assert rest == ["the device model", "libxl_device_disk_add", "libxl_device_nic_add"]
    (file,) = xen.lib_dir.iterdir()
    noted = json.loads(file.read_bytes().rstrip(b"\0"))
    assert [item["vdev"] for item in noted["disks"]] == ["xvdb", "xvda"]
    assert noted["nics"][0]["devid"] == 3
    assert xen.node("/libxl/1/device/vif/3/backend") == "/local/domain/0/backend/vif/1/3"


def test_where_and_how_it_runs(ctx: Context, xen: FakeXenHost) -> None:
    def change(config: dict[str, Any]) -> None:
        config["b_info"].update(
            nodemap=[0],
            vcpu_hard_affinity=[[0, 1]],
            vcpu_soft_affinity=[[1]],
            sched_params={"sched": "credit2", "weight": 512, "cap": 50, "period": 1000},
            rtc_timeoffset=-3600,
            localtime="True",
        )
        config["b_info"]["type.hvm"] = {"altp2m": "True", "mca_caps": 1}

    Restoring(ctx, xen, with_config("hvm", change)).result()
    (domain,) = xen.domains
    assert domain.node_affinity[:2] == "01"
    assert domain.vcpu_affinity[0] == (None, "0200000000000000")
    assert domain.sched == {"weight": 512, "cap": 50}
    assert domain.time_offset % 60 == 0


def test_an_id_that_was_in_use_a_moment_ago_is_not_taken(ctx: Context, xen: FakeXenHost) -> None:
    stream = StreamBuilder("pvh")
    xen.fail("xc_domain_unpause")
    Restoring(ctx, xen, stream).error()  # and its id is noted
    xen.hypervisor.last_domid = 0
    assert Restoring(ctx, xen, stream).result().guest.domid == 2


# What stands in the way.


def test_no_configuration(ctx: Context, xen: FakeXenHost) -> None:
    error = Restoring(ctx, xen, StreamBuilder("pvh", xl_header=False)).error()
    assert isinstance(error, UsageError)
    assert "--config" in str(error)
    assert xen.calls == []


def test_a_configuration_that_is_given(ctx: Context, xen: FakeXenHost) -> None:
    given = xl.Config.from_json(config_json("hvm", 16, name="given"))
    stream = StreamBuilder("hvm", xl_header=False)
    restored = Restoring(ctx, xen, stream, options=RestoreOptions(config=given)).result()
    assert restored.guest.name == "given"


@pytest.mark.parametrize(
    ("given", "stream", "said"),
    [
        ("hvm", StreamBuilder("pvh", xl_header=False), "ends without an EMULATOR_CONTEXT"),
        ("pvh", StreamBuilder("hvm", xl_header=False), "a pvh guest has no EMULATOR_CONTEXT"),
        (
            "pvh",
            StreamBuilder("hvm", xl_header=False, xenstore=[("physmap/a/size", "1")]),
            "a pvh guest has no EMULATOR_XENSTORE_DATA",
        ),
    ],
    ids=["no state", "a state", "keys"],
)
def test_a_configuration_that_is_of_another_guest(
    ctx: Context, xen: FakeXenHost, given: str, stream: StreamBuilder, said: str
) -> None:
    options = RestoreOptions(config=xl.Config.from_json(config_json(given, 16)))
    error = Restoring(ctx, xen, stream, options=options).error()
    assert isinstance(error, StreamError)
    assert said in str(error)


def test_a_host_that_lacks_all_that_it_takes(ctx: Context, xen: FakeXenHost) -> None:
    xen.hypervisor.hvm = False
    xen.hypervisor.total_pages = 1 << 18
    xen.device_models[0].unlink()
    (xen.script_dir / "vif-bridge").unlink()

    def add(config: dict[str, Any]) -> None:
        config["nics"] = [{"devid": 0}]

    error = Restoring(ctx, xen, with_config("hvm", add)).error()
    for said in ("no HVM guests", "QEMU is not installed", "KiB are missing", "vif-bridge"):
        assert said in str(error)
    assert not [call for call in xen.calls if call.name == "xc_domain_create"]


def test_another_xen_than_the_bindings_are_for(ctx: Context, xen: FakeXenHost) -> None:
    xen.fail("xc_interface_open", errno.EACCES)
    error = Restoring(ctx, xen, StreamBuilder("pvh")).error()
    assert "the hypervisor can't be reached" in str(error)
    assert "run as root in dom0" in str(error)


@pytest.mark.parametrize("piped", [False, True])
def test_a_cpu_that_the_host_can_not_give(ctx: Context, xen: FakeXenHost, piped: bool) -> None:
    """From a file it is known before anything is read, from a pipe libxenguest finds out."""
    xen.hypervisor.refused_cpuid_leaf = 0
    if not piped:
        error = Restoring(ctx, xen, StreamBuilder("pvh")).error()
        assert "this host's CPU can't run the guest as it was saved: CPUID leaf 0x0" in str(error)
        return
    read_end, write_end = os.pipe()
    StreamBuilder("pvh", pages=2).write_to(write_end)
    os.close(write_end)
    ao = restore_ao(ctx, read_end, target=XenTarget(ctx, host=xen))
    run_until(ctx, lambda: ao.done)
    os.close(read_end)
    with pytest.raises(TargetError, match="Failed to set CPUID policy"):
        ao.result()
    assert xen.left_behind() == []


def test_more_memory_than_the_configuration_gives(ctx: Context, xen: FakeXenHost) -> None:
    stream = StreamBuilder("pvh", pages=1000, config=config_json("pvh", 16))
    error = Restoring(ctx, xen, stream).error()
    assert "holds more memory than the configuration gives the domain" in str(error)


def test_a_checkpointed_stream(ctx: Context, xen: FakeXenHost) -> None:
    error = Restoring(ctx, xen, StreamBuilder("hvm", checkpoints=[range(2)])).error()
    assert "checkpointed streams (Remus, COLO) can't be restored" in str(error)


def test_a_console_without_a_tty(xen: FakeXenHost, clock: FakeClock) -> None:
    xen.xenstored.xenconsoled_runs = False
    ctx = Context(clock=clock)
    restoring = Restoring(ctx, xen, StreamBuilder("pvh"))
    run_until_idle(ctx)
    clock.advance(9.0)
    run_until_idle(ctx)
    assert not restoring.ao.done
    clock.advance(1.0)
    assert "xenconsoled gave domain 1 no tty within 10 s" in str(restoring.error())


def test_a_tty_that_comes_late(xen: FakeXenHost, clock: FakeClock) -> None:
    xen.xenstored.xenconsoled_runs = False
    ctx = Context(clock=clock)
    restoring = Restoring(ctx, xen, StreamBuilder("pvh"))
    run_until_idle(ctx)
    assert not restoring.ao.done
    xen.xenstored.give_tty(1)
    assert restoring.result().guest.domid == 1


def test_a_disk_that_another_domain_takes_meanwhile(ctx: Context, xen: FakeXenHost) -> None:
    """The stream can take long: the disks are looked at again at its end."""
    disk = {"vdev": "xvda", "pdev_path": __file__, "format": "raw", "readwrite": 1}

    def taken(call: CallMade) -> None:
        if call.name == "xc_domain_restore":
            device = "/libxl/9/device/vbd/51712"
            xen.xenstored.write(0, 0, f"{device}/params", __file__)
            xen.expect_left("/libxl/9")

    xen.state.on_call = taken
    stream = with_config("pvh", lambda config: config.update(disks=[{**disk, "backend": "phy"}]))
    error = Restoring(ctx, xen, stream).error()
    assert "is in use by domain 9" in str(error)


def test_a_transaction_that_others_interfere_with(ctx: Context, xen: FakeXenHost) -> None:
    for number in (1, 2):
        xen.fail("xs_transaction_end", errno.EAGAIN, nth=number)
    Restoring(ctx, xen, StreamBuilder("pvh")).result()
    assert len([call for call in xen.calls if call.name == "xs_transaction_end"]) > 2


# Names, UUIDs, memory: several restores at a time.


class Running:
    """One restore, call by call."""

    def __init__(
        self, ctx: Context, xen: FakeXenHost, options: RestoreOptions | None = None
    ) -> None:
        self.driver = Driver(ctx, XenTarget(ctx, options, xen), StreamBuilder("pvh"))
        image = ImageDescription(xl.Config.from_json(config_json("pvh", 16)), None)
        self.prepared = self.driver.begin("prepare", image, self.driver.hooks)

    def roll_back(self) -> LibxlsrError | None:
        (error,) = self.driver.call("rollback")
        return error  # type: ignore[no-any-return]


def test_an_abort_right_behind_prepare(ctx: Context, xen: FakeXenHost) -> None:
    restore, reason = Running(ctx, xen), TargetError("enough")
    restore.driver.target.abort(reason)
    assert restore.driver.end(restore.prepared) == (reason,)
    assert not xen.domains
    assert restore.roll_back() is None
    assert xen.left_behind() == []


def test_of_two_with_one_uuid_one_gets_no_domain(ctx: Context, xen: FakeXenHost) -> None:
    first, second = Running(ctx, xen), Running(ctx, xen, overrides(("name", "other")))
    assert first.driver.end(first.prepared) == (None,)
    (error,) = second.driver.end(second.prepared)
    assert "domain 1 has the UUID" in str(error)
    for restore in (second, first):
        assert restore.roll_back() is None
    assert xen.left_behind() == []


def test_the_one_that_loses_its_name_leaves_the_others_nodes_and_files(
    ctx: Context, xen: FakeXenHost
) -> None:
    first, second = Running(ctx, xen), Running(ctx, xen, overrides(*OTHER_UUID))
    for restore in (first, second):
        assert restore.driver.end(restore.prepared) == (None,)
    assert first.driver.restore_libxc()[1] is None
    before = set(xen.xenstored.nodes), set(xen.lib_dir.iterdir())
    assert len(before[1]) == 1
    error = second.driver.restore_libxc()[1]
    assert "domain 1 has the name guest already" in str(error)
    assert second.roll_back() is None
    assert (set(xen.xenstored.nodes), set(xen.lib_dir.iterdir())) == before
    assert first.roll_back() is None
    assert xen.left_behind() == []


@pytest.mark.parametrize("balloon", [False, True])
def test_a_uuid_that_is_taken_after_the_preflight(
    ctx: Context, xen: FakeXenHost, balloon: bool
) -> None:
    def taken(call: CallMade) -> None:
        if call.name == "spawn" and not xen.domains:
            xen.add_domain("another", uuid.UUID(UUID))

    xen.state.on_call = taken
    options = RestoreOptions(balloon=balloon)
    error = Restoring(ctx, xen, StreamBuilder("pvh"), options=options).error()
    assert "domain 1 has the UUID" in str(error)
    assert [domain.domid for domain in xen.domains] == [1]


def test_one_that_may_balloon_dom0_keeps_others_from_counting_memory(
    ctx: Context, xen: FakeXenHost
) -> None:
    balloon = RestoreOptions(balloon=True)
    first = Running(ctx, xen, balloon)
    assert first.driver.end(first.prepared) == (None,)
    second = Running(ctx, xen, overrides(("name", "other"), ("uuid", "new"), balloon=True))
    third = Running(ctx, xen, overrides(("name", "third"), ("uuid", "new")))
    assert third.driver.end(third.prepared) == (None,)  # has nothing to do with the lock
    assert second.prepared == []
    assert first.roll_back() is None
    assert second.driver.end(second.prepared) == (None,)
    for restore in (second, third):
        assert restore.roll_back() is None
    assert xen.left_behind() == []


def test_dom0_gives_memory_up_and_gets_it_back(ctx: Context, xen: FakeXenHost) -> None:
    dom0 = xen.hypervisor.domains[0]
    xen.hypervisor.total_pages = dom0.pages + 256
    target = "/local/domain/0/memory/target"

    def dom0_obeys(call: CallMade) -> None:
        if call.name == "xc_physinfo" and (wanted := xen.node(target)):
            dom0.pages = int(wanted) // 4
        xen.expect_left("/local/domain/0/memory")

    xen.state.on_call = dom0_obeys
    before = dom0.pages
    xen.fail("xc_domain_unpause")
    options = RestoreOptions(balloon=True)
    error = Restoring(ctx, xen, StreamBuilder("pvh"), options=options).error()
    assert error.call == "xc_domain_unpause"  # type: ignore[attr-defined]
    assert dom0.pages < before
    assert xen.node(target) == str(before * 4)


# Undoing.


def test_a_domain_that_others_map_is_waited_for(ctx: Context, xen: FakeXenHost) -> None:
    """Xen keeps it, dying, until they let go."""
    restore = Running(ctx, xen)
    assert restore.driver.end(restore.prepared) == (None,)
    xen.hypervisor.mapped_elsewhere.add(1)
    undone = restore.driver.begin("rollback")
    run_until(ctx, lambda: xen.hypervisor.domains[1].dying)
    assert undone == []
    xen.hypervisor.unmap(1)
    assert restore.driver.end(undone) == (None,)
    assert xen.left_behind() == []


def test_a_domain_that_never_goes_is_named(xen: FakeXenHost, clock: FakeClock) -> None:
    ctx = Context(clock=clock)
    restore = Running(ctx, xen)
    assert restore.driver.end(restore.prepared) == (None,)
    xen.hypervisor.mapped_elsewhere.add(1)
    undone = restore.driver.begin("rollback")
    run_until_idle(ctx)
    clock.advance(10.0)
    (error,) = restore.driver.end(undone)
    assert "domain 1 does not go away" in str(error)
    xen.hypervisor.unmap(1)


def test_a_domain_that_xen_does_not_tell_of_is_destroyed(
    xen: FakeXenHost, clock: FakeClock
) -> None:
    ctx = Context(clock=clock)
    restore = Running(ctx, xen)
    assert restore.driver.end(restore.prepared) == (None,)

    def tells_nothing(call: CallMade) -> None:
        if call.name == "xc_domain_getinfo":
            raise XenFailure(errno.EFAULT)

    xen.state.on_call = tells_nothing
    undone = restore.driver.begin("rollback")
    run_until_idle(ctx)
    assert not xen.domains
    clock.advance(10.0)
    (error,) = restore.driver.end(undone)
    assert str(error).startswith("could not ask for domain 1")


def test_an_error_that_passes_is_none(ctx: Context, xen: FakeXenHost) -> None:
    restore = Running(ctx, xen)
    assert restore.driver.end(restore.prepared) == (None,)
    xen.fail("xc_domain_getinfo", nth=1)
    xen.fail("xc_domain_getinfo", nth=2)
    assert restore.roll_back() is None
    assert xen.left_behind() == []


def test_what_can_not_be_undone_is_told_later(ctx: Context, xen: FakeXenHost) -> None:
    xen.fail("xc_domain_unpause")
    xen.fail("xs_transaction_end", errno.ENOSPC, nth=3)
    restoring = Restoring(ctx, xen, StreamBuilder("pvh"))
    run_until(ctx, lambda: restoring.ao.done)
    with pytest.raises(TargetError) as caught:
        restoring.ao.result()
    os.close(restoring.file)
    assert caught.value.call == "xc_domain_unpause"
    (later,) = caught.value.later
    assert "No space left on device" in str(later)
    assert not xen.domains


@pytest.mark.parametrize("child", ["works", "fails"])
def test_a_large_domain_is_destroyed_in_a_child(ctx: Context, xen: FakeXenHost, child: str) -> None:
    """And by the loop, where the child can't."""
    restore = Running(ctx, xen)
    assert restore.driver.end(restore.prepared) == (None,)
    xen.domains[0].pages = (1 << 30) // 4096
    if child == "fails":
        xen.fail("libxl_domain_destroy")
    assert restore.roll_back() is None
    destroyed = [call.name for call in xen.calls if "destroy" in call.name]
    assert destroyed == ["libxl_domain_destroy"] + ["xc_domain_destroy"] * (child == "fails")
    assert xen.left_behind() == []


def test_a_helper_that_can_not_be_killed_is_named_and_the_rest_undone(
    ctx: Context, real: FakeXenHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore = Running(ctx, real)
    assert restore.driver.end(restore.prepared) == (None,)
    target = restore.driver.target
    assert isinstance(target, XenTarget)
    pid = target.helper_pid
    with unkillable(monkeypatch):
        error = restore.roll_back()
    assert f"process {pid} does not end" in str(error)
    assert not real.domains
    run_until(ctx, lambda: not ctx.registered())


# Processes that go wrong.


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("fails", "Failed to map guest pages"),
        ("is-killed", "killed by SIGKILL"),
        ("asserts", "Assertion `false' failed"),
    ],
)
def test_libxenguest_goes_wrong(ctx: Context, real: FakeXenHost, way: str, said: str) -> None:
    real.fail_in_restore(way, after=3)
    assert said in str(Restoring(ctx, real, StreamBuilder("pvh")).error())


def test_an_abort_while_libxenguest_hangs(ctx: Context, real: FakeXenHost) -> None:
    real.fail_in_restore("hangs", after=3)
    restoring = Restoring(ctx, real, StreamBuilder("hvm"))
    run_until(ctx, lambda: any(call.name == "xc_domain_restore" for call in real.calls))
    restoring.ao.abort(Aborted("enough"))
    assert isinstance(restoring.error(), Aborted)


@pytest.mark.parametrize(
    ("way", "said"), [("fails", "could not attach its disk xvda"), ("is-killed", "SIGKILL")]
)
def test_libxenlight_goes_wrong(ctx: Context, real: FakeXenHost, way: str, said: str) -> None:
    disk = {"vdev": "xvda", "pdev_path": __file__, "format": "raw", "readwrite": 1}
    real.fail_in_devices(way)
    stream = with_config("pvh", lambda config: config.update(disks=[{**disk, "backend": "phy"}]))
    assert said in str(Restoring(ctx, real, stream).error())
    assert "libxl_domain_destroy" in [call.name for call in real.calls]


@pytest.mark.parametrize("way", ["exits", "refuses-to-go-on", "hangs-up-while-it-reads"])
def test_a_device_model_goes_wrong(ctx: Context, real: FakeXenHost, way: str) -> None:
    options = overrides(("b_info.extra", json.dumps(["-way", way])))
    error = Restoring(ctx, real, StreamBuilder("hvm"), options=options).error()
    assert isinstance(error, TargetError)
    assert error.last_log == "no display"
    assert "qemu-dm-guest.log" in str(error)


def test_a_device_model_that_never_gets_ready(ctx: Context, real: FakeXenHost) -> None:
    extra = ("b_info.extra", '["-way", "never-ready"]')
    options = overrides(extra, timeouts=Timeouts(device_model=0.5))
    error = Restoring(ctx, real, StreamBuilder("hvm"), options=options).error()
    assert isinstance(error, TimedOut)


def test_a_spare_helper(ctx: Context, real: FakeXenHost) -> None:
    with SpareHelper(ctx, real) as spare:
        first = spare.pid
        options = RestoreOptions(spare_helper=spare)
        restoring = Restoring(ctx, real, StreamBuilder("pvh"), options=options)
        run_until(ctx, lambda: restoring.ao.done)
        restoring.ao.result()
        os.close(restoring.file)
        run_until(ctx, lambda: spare.pid is not None)
        assert spare.pid != first


def test_the_state_file_is_roots_alone(ctx: Context, xen: FakeXenHost) -> None:
    modes: list[int] = []

    def look(call: CallMade) -> None:
        path = xen.lib_dir / "qemu-resume.1"
        if call.name == "xs_introduce_domain":
            modes.append(stat.S_IMODE(path.stat().st_mode))

    xen.state.on_call = look
    Restoring(ctx, xen, StreamBuilder("hvm")).result()
    assert modes == [0o600]


def test_records_out_of_a_bare_libxc_stream(ctx: Context, xen: FakeXenHost) -> None:
    """The first bytes are read to tell what it is, and given back to libxenguest."""
    stream = StreamBuilder("pvh", xl_header=False)
    first = stream.find(RecordType.X86_CPUID_POLICY)
    del stream.parts[: stream.parts.index(first) - 2]
    stream.truncate_after(stream.find(RecordType.END))
    options = RestoreOptions(config=xl.Config.from_json(config_json("pvh", 16)))
    assert Restoring(ctx, xen, stream, options=options).result().image_kind == "libxc"
