"""The bindings against the real hypervisor and the real xenstored."""

from __future__ import annotations

import errno
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from libxlsr.errors import BackendUnavailable, TargetError
from libxlsr.events import Context, run
from libxlsr.xen import backend
from libxlsr.xen.scheduling import SchedParams, set_sched_params
from libxlsr.xen.watches import Watches
from libxlsr.xen.xenctrl import CreateDomain, Xenctrl
from libxlsr.xen.xenguest import cpuid_apply_policy, set_domain_cpu_policy
from libxlsr.xen.xenstore import (
    Perm,
    Permission,
    Transaction,
    TransactionConflict,
    Xenstore,
)

pytestmark = pytest.mark.usefixtures("unchanged_host")

ROOT = "/libxlsr-test"


@pytest.fixture
def xenctrl() -> Iterator[Xenctrl]:
    with Xenctrl() as handle:
        yield handle


@pytest.fixture
def xenstore() -> Iterator[Xenstore]:
    with Xenstore() as handle:
        yield handle
        handle.rm(ROOT)


@pytest.fixture(params=["pv", "pvh"])
def domid(request: pytest.FixtureRequest, xenctrl: Xenctrl) -> Iterator[int]:
    """An empty domain."""
    lib = xenctrl.lib
    pvh = request.param == "pvh"
    created = xenctrl.domain_create(
        CreateDomain(
            handle=uuid.UUID(int=0x1234567890ABCDEF << 64 | 0xFEDC),
            flags=lib.XEN_DOMCTL_CDF_hvm | lib.XEN_DOMCTL_CDF_hap if pvh else 0,
            max_vcpus=2,
            max_evtchn_port=1023,
            max_grant_frames=-1,
            max_maptrack_frames=-1,
            max_grant_version=2,
            emulation_flags=lib.XEN_X86_EMU_LAPIC if pvh else 0,
        )
    )
    yield created
    xenctrl.domain_destroy(created)


def test_the_host(xenctrl: Xenctrl) -> None:
    version, host = xenctrl.xen_version(), xenctrl.physinfo()
    assert version.release.split(".")[:2] == backend.built_for().split(".")[:2]
    assert "xen-3.0-x86_64" in version.capabilities
    assert host.pv
    assert host.hvm
    assert host.hap
    assert 0 < host.free_bytes < host.total_bytes
    dom0 = next(xenctrl.domains())
    assert (dom0.domid, dom0.running, dom0.hvm) == (0, True, False)


def test_another_xen_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "built_for", lambda _backend=None: "4.99.0")
    with pytest.raises(BackendUnavailable, match=r"built for Xen 4\.99\.0, but Xen 4\.\d+.* is"):
        Xenctrl()


def test_a_domain(xenctrl: Xenctrl, domid: int) -> None:
    xenctrl.domain_max_vcpus(domid, 2)
    xenctrl.domain_setmaxmem(domid, 8192)
    xenctrl.domain_set_tsc_info(domid, 1)
    info = xenctrl.domain_info(domid)
    assert info is not None
    assert info.uuid.int == 0x1234567890ABCDEF << 64 | 0xFEDC
    assert (info.paused, info.dying, info.shutdown_reason) == (True, False, None)
    assert (info.max_vcpu_id, info.total_bytes, info.max_bytes) == (1, 0, 8192 * 1024)
    assert info in list(xenctrl.domains())
    xenctrl.domain_sethandle(domid, uuid.UUID(int=7))
    changed = xenctrl.domain_info(domid)
    assert changed is not None
    assert changed.uuid.int == 7


def test_ports_parameters_and_policies(xenctrl: Xenctrl, domid: int) -> None:
    info = xenctrl.domain_info(domid)
    assert info is not None
    assert xenctrl.evtchn_alloc_unbound(domid, 0) != xenctrl.evtchn_alloc_unbound(domid, 0)
    timer_mode = xenctrl.lib.HVM_PARAM_TIMER_MODE
    if info.hvm:
        xenctrl.set_paging_mempool_size(domid, 4 << 20)
        xenctrl.hvm_param_set(domid, timer_mode, 2)
        assert xenctrl.hvm_param_get(domid, timer_mode) == 2
    else:
        xenctrl.domain_set_memmap_limit(domid, 8192)
        with pytest.raises(TargetError, match="could not set HVM parameter") as caught:
            xenctrl.hvm_param_set(domid, timer_mode, 2)
        assert (caught.value.errno, caught.value.call) == (errno.EINVAL, "xc_hvm_param_set")
    xenctrl.domain_max_vcpus(domid, 2)
    cpuid_apply_policy(xenctrl, domid)
    xenctrl.vcpu_setaffinity(domid, 0, hard=[0], soft=[0, 1, 99])
    xenctrl.domain_node_setaffinity(domid, [0])
    wanted = SchedParams(weight=512, cap=0, period=10000)
    assert set_sched_params(xenctrl, domid, wanted) == {"period"}


def test_an_impossible_policy_names_its_leaf(xenctrl: Xenctrl, domid: int) -> None:
    # Leaf 0 with a largest leaf of 0xffff: no CPU has that many.
    leaf = b"".join(
        word.to_bytes(4, "little")
        for word in (0, 0xFFFFFFFF, 0xFFFF, 0x68747541, 0x444D4163, 0x69746E65)
    )
    refused = set_domain_cpu_policy(xenctrl, domid, leaf, b"")
    assert refused is not None
    assert str(refused) == "CPUID leaf 0x0"


def test_a_domain_that_is_not_there(xenctrl: Xenctrl) -> None:
    assert xenctrl.domain_info(30000) is None
    with pytest.raises(TargetError, match="could not pause domain 30000") as caught:
        xenctrl.domain_pause(30000)
    assert caught.value.errno == errno.ESRCH


def test_nodes(xenstore: Xenstore) -> None:
    value = "käse\udcff\x00\n"
    xenstore.write(f"{ROOT}/a/b", value)
    assert xenstore.read(f"{ROOT}/a/b") == value
    assert xenstore.read(f"{ROOT}/none") is None
    xenstore.mkdir(f"{ROOT}/c")
    assert sorted(xenstore.directory(ROOT) or ()) == ["a", "c"]
    assert xenstore.directory(f"{ROOT}/none") is None
    assert [path for path, _ in xenstore.walk(f"{ROOT}/a")] == [f"{ROOT}/a", f"{ROOT}/a/b"]
    xenstore.rm(ROOT)
    xenstore.rm(ROOT)
    assert xenstore.read(ROOT) is None


def test_permissions(xenstore: Xenstore) -> None:
    wanted = [
        Permission(3, Perm.NONE),
        Permission(0, Perm.READ),
        Permission(9, Perm.READ | Perm.WRITE),
    ]
    xenstore.write(ROOT, "")
    xenstore.set_permissions(ROOT, wanted)
    assert xenstore.get_permissions(ROOT) == wanted
    assert xenstore.get_permissions(f"{ROOT}/none") is None


def test_a_refused_request_says_what_was_asked(xenstore: Xenstore) -> None:
    with pytest.raises(TargetError, match=r"could not write not a path: xs_write failed: Invalid"):
        xenstore.write("not a path", "")


def test_a_transaction_is_whole_or_not_at_all(xenstore: Xenstore) -> None:
    def half(transaction: Transaction) -> None:
        transaction.write(f"{ROOT}/one", "1")
        raise KeyError

    with pytest.raises(KeyError):
        xenstore.transact(half)
    assert xenstore.read(f"{ROOT}/one") is None


def test_a_transaction_is_tried_again_when_others_interfere(xenstore: Xenstore) -> None:
    xenstore.write(f"{ROOT}/n", "0")
    attempts: list[str] = []
    with Xenstore() as other:

        def body(transaction: Transaction) -> None:
            attempts.append(transaction.read(f"{ROOT}/n") or "")
            if len(attempts) < 3:
                other.write(f"{ROOT}/n", str(len(attempts)))
            transaction.write(f"{ROOT}/n", "mine")

        xenstore.transact(body)
        assert attempts == ["0", "1", "2"]
        assert xenstore.read(f"{ROOT}/n") == "mine"


def test_a_conflict_is_told_apart(xenstore: Xenstore) -> None:
    def conflict() -> None:
        with Xenstore() as other, xenstore.transaction() as transaction:
            transaction.read(f"{ROOT}/n")
            other.write(f"{ROOT}/n", "theirs")
            transaction.write(f"{ROOT}/n", "mine")

    xenstore.write(f"{ROOT}/n", "0")
    with pytest.raises(TransactionConflict):
        conflict()
    assert xenstore.read(f"{ROOT}/n") == "theirs"


def test_watches_on_the_loop(xenstore: Xenstore) -> None:
    ctx = Context()
    watches = Watches(ctx, xenstore)
    seen: list[str] = []
    watch = watches.watch(ROOT, seen.append)
    run(ctx, lambda: bool(seen))
    xenstore.write(f"{ROOT}/deep/node", "1")
    run(ctx, lambda: len(seen) > 1)
    assert seen == [ROOT, f"{ROOT}/deep/node"]
    watch.close()
    watch.close()
    assert ctx.registered() == []
    # xenstored tells of changes in their order: when the second has come, the first would have.
    other: list[str] = []
    watch = watches.watch(f"{ROOT}/other", other.append)
    xenstore.write(f"{ROOT}/deep/node", "2")
    xenstore.write(f"{ROOT}/other", "")
    run(ctx, lambda: len(other) > 1)
    watch.close()
    assert seen == [ROOT, f"{ROOT}/deep/node"]
    assert ctx.registered() == []


FAULTS_OF_A_BLOCK = """
import ctypes, resource
from libxlsr.xen.xenctrl import Xenctrl
from libxlsr.xen.xenguest import reserve_heap
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
size = 4 << 20
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(libc.malloc(size))
    ctypes.memset(block, 1, size)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(max(faults() for _ in range(3)))
reserve_heap(Xenctrl())
print(max(faults() for _ in range(3)))
"""


def test_a_reserved_heap_takes_no_page_faults() -> None:
    said = subprocess.run(
        [sys.executable, "-c", FAULTS_OF_A_BLOCK], check=True, capture_output=True, text=True
    )
    before, after = map(int, said.stdout.split())
    assert before >= 1000  # 4 MiB in pages of 4 KiB
    assert after < 100
