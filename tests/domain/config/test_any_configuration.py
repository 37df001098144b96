"""Whatever an image's configuration says, it can be made a domain of, or is refused with a reason.

The JSON of a real image, and one that names every member that is looked at, with members replaced:
by null, by another type, by numbers beyond what a C struct holds, by what is nested deeply.
"""

from __future__ import annotations

import contextlib
import copy
import lzma
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libxlsr.domain import create, memory, preflight
from libxlsr.domain import nodes as xenstore_nodes
from libxlsr.domain.config import DomainConfig, read_config
from libxlsr.domain.config.domain import DEVICE_LISTS
from libxlsr.domain.config.overrides import apply_overrides
from libxlsr.domain.create import BuildState
from libxlsr.domain.device_model.args import Sockets, arguments
from libxlsr.domain.device_model.program import needs_device_model
from libxlsr.domain.devices import checks as device_checks
from libxlsr.domain.devices.plan import batches, plan
from libxlsr.domain.host import XenHost
from libxlsr.domain.libxl_files import userdata
from libxlsr.errors import LibxlsrError
from libxlsr.formats import xl
from tests.paths import EXAMPLE

from ..fake_host import FakeXenctrl, FakeXenstore
from ..hosts import HOST

CONFIG_AT = 52
"""Behind xl's header, and the length of the configuration."""


def of_the_example() -> dict[str, Any]:
    with lzma.open(EXAMPLE) as file:
        head = file.read(1 << 16)
    return xl.Config.decode(head[CONFIG_AT : head.index(b"\0", CONFIG_AT) + 1]).json


def of_every_member(kind: str) -> dict[str, Any]:
    """Values that are taken as they are, but for devices that can't be restored."""
    return {
        "c_info": {
            "type": kind,
            "name": "guest",
            "uuid": "13b086ae-4a23-480c-a9b5-26f262d4c7be",
            "hap": "True",
            "oos": "True",
            "driver_domain": "False",
            "pool_name": "Pool-0",
            "ssidref": 12,
            "ssid_label": "",
            "passthrough": "disabled",
            "xend_suspend_evtchn_compat": "False",
            "xsdata": {"vm-data/key": "value"},
            "platformdata": {"acpi_s3": "1"},
        },
        "b_info": {
            "max_vcpus": 2,
            "avail_vcpus": [0, 1],
            "cpumap": [0],
            "vcpu_hard_affinity": [[0], [1]],
            "vcpu_soft_affinity": [[0]],
            "nodemap": [0],
            "numa_placement": "False",
            "max_memkb": 131072,
            "target_memkb": 131072,
            "video_memkb": 8192,
            "shadow_memkb": 2048,
            "vpmu": "False",
            "nested_hvm": "False",
            "disable_migrate": "False",
            "localtime": "False",
            "rtc_timeoffset": 3600,
            "event_channels": 1023,
            "max_grant_frames": 64,
            "max_maptrack_frames": 1024,
            "max_grant_version": 2,
            "vmtrace_buf_kb": 64,
            "altp2m": "disabled",
            "altp2m_count": 10,
            "trap_unmapped_accesses": "False",
            "xenstore_feature_mask": 3,
            "xenstore_quota": {"quota": [{"name": "nodes", "val": 1000}]},
            "tsc_mode": "default",
            "timer_mode": "no_delay_for_missed_ticks",
            "acpi": "True",
            "kernel": "/k",
            "ramdisk": "/r",
            "cmdline": "c",
            "device_model": "/qemu",
            "device_model_version": "qemu_xen",
            "device_model_stubdomain": "False",
            "dm_restrict": "False",
            "extra": ["-x"],
            "extra_hvm": ["-y"],
            "extra_pv": ["-z"],
            "ioports": [],
            "irqs": [],
            "iomem": [],
            "exec_ssid_label": "",
            "sched_params": {"weight": 256, "cap": 0, "period": 1, "budget": 1, "extratime": 1},
            "arch_x86": {"msr_relaxed": "True"},
            f"type.{kind}": {
                "pirq": "True",
                "pae": "True",
                "acpi": "True",
                "altp2m": "False",
                "nested_hvm": "False",
                "timer_mode": "no_delay_for_missed_ticks",
                "slack_memkb": 8,
                "e820_host": "False",
                "bios": "seabios",
                "boot": "cda",
                "serial": "pty",
                "serial_list": ["pty"],
                "usb": "True",
                "usbversion": 2,
                "usbdevice": "tablet",
                "usbdevice_list": ["tablet"],
                "soundhw": "hda",
                "hdtype": "ahci",
                "vendor_device": "none",
                "vkb_device": "True",
                "xen_platform_pci": "True",
                "mmio_hole_memkb": 1 << 20,
                "mca_caps": 1,
                "hpet": "True",
                "vpt_align": "True",
                "timeoffset": "0",
                "ms_vm_genid": [1] * 16,
                "gfx_passthru": "False",
                "nographic": "False",
                "keymap": "de",
                "vga": {"kind": "std"},
                "vnc": {"enable": "True", "listen": "127.0.0.1", "passwd": "p", "display": 1},
                "sdl": {"enable": "True", "display": ":0", "xauthority": "/x"},
                "spice": {"enable": "False"},
            },
        },
        "disks": [
            {
                "vdev": "xvda",
                "pdev_path": "/nowhere/disk",
                "format": "raw",
                "backend": "phy",
                "script": "block",
                "readwrite": 1,
                "is_cdrom": 0,
                "backend_domname": "0",
                "specification": "xen",
            }
        ],
        "nics": [
            {
                "devid": 0,
                "mac": "00:16:3e:00:00:01",
                "model": "e1000",
                "bridge": "xenbr0",
                "script": "vif-bridge",
                "ifname": "vif7",
                "nictype": "vif",
                "backend_domid": 0,
            }
        ],
        "vfbs": [{"vnc": {"enable": "True"}, "sdl": {"enable": "False"}, "keymap": "de"}],
        "vkbs": [{"backend_type": "linux"}],
        **{name: [] for name in DEVICE_LISTS if name not in ("disks", "nics", "vfbs", "vkbs")},
    }


TREES = [of_the_example(), *(of_every_member(kind) for kind in ("pv", "pvh", "hvm"))]


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Each member's and item's place: keys and indices, from the root on."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, below in items:
        yield (*at, key)
        if isinstance(below, (dict, list)):
            yield from places(below, (*at, key))


def nested(depth: int) -> Any:
    value: Any = None
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


EDGES = [
    sign * (1 << bits) + more
    for bits in (0, 8, 15, 16, 22, 31, 32, 42, 52, 63, 64)
    for sign in (1, -1)
    for more in (-1, 0, 1)
]

values = st.one_of(
    st.none(),
    st.sampled_from(EDGES),
    st.integers(-(1 << 70), 1 << 70),
    st.booleans(),
    st.text(max_size=4),
    st.sampled_from(["True", "-1", "0", "/", "a" * 3000, "\u00e4" * 2000, {}, [], [None], [[]]]),
    st.sampled_from([[{}], {"": None}, [0] * 17, [[None]], [-1], [1 << 64]]),
    st.sampled_from([3, 30, 100]).map(nested),
)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, Any]:
    original: dict[str, Any] = draw(st.sampled_from(TREES))
    tree = copy.deepcopy(original)
    for *above, last in draw(st.lists(st.sampled_from(list(places(original))), max_size=3)):
        with contextlib.suppress(KeyError, IndexError, TypeError):  # what was above has gone
            at(tree, above)[last] = copy.deepcopy(draw(values))
    return tree


overrides = st.lists(
    st.sampled_from(
        [
            ("name", "other"),
            ("uuid", "new"),
            ("memory", "64"),
            ("memory", "0x" + "f" * 4000),
            ("maxmem", "200"),
            ("vcpus", "2"),
            ("vcpus", str(1 << 40)),
            ("b_info.arch_x86.msr_relaxed", "true"),
            ("b_info.type.hvm.vga.kind", "null"),
            ("disks", "null"),
            ("b_info.tsc_mode", "[" * 5000),
            (".".join("a" * 3000), "1"),
        ]
    ),
    max_size=2,
)


class Flags:
    """libxenctrl's constants: each is 1."""

    def __getattr__(self, name: str) -> int:
        return 1


class CheckedXenctrl(FakeXenctrl):
    """Takes what fits the arguments of libxenctrl's functions (cffi_build/xenctrl.py)."""

    lib = Flags()

    def domain_set_time_offset(self, _domid: int, seconds: int) -> None:
        assert -(1 << 31) <= seconds < 1 << 31

    def evtchn_alloc_unbound(self, _domid: int, _remote_domid: int) -> int:
        return 1

    def domain_max_vcpus(self, _domid: int, vcpus: int) -> None:
        assert 0 < vcpus < 1 << 32

    def vcpu_setaffinity(self, _domid: int, vcpu: int, **cpus: frozenset[int]) -> None:
        assert 0 <= vcpu < 1 << 32
        assert all(0 <= cpu < 1 << 16 for cpumap in cpus.values() for cpu in cpumap)

    def domain_node_setaffinity(self, _domid: int, nodes: frozenset[int]) -> None:
        assert all(0 <= node < 1 << 16 for node in nodes)

    def hvm_param_set(self, _domid: int, _param: int, value: int) -> None:
        assert 0 <= value < 1 << 64

    def _size(self, _domid: int, size: int) -> None:
        assert 0 <= size < 1 << 64

    domain_setmaxmem = domain_set_memmap_limit = set_paging_mempool_size = _size
    domain_set_tsc_info = _size


def check_creation(config: DomainConfig) -> None:
    """Whether it fits struct xlsr_createdomain, and the calls that follow."""
    xenctrl, store = CheckedXenctrl(), FakeXenstore()
    store.write("/local/pool/0/name", "Pool-0")
    wanted = create.creation_of(xenctrl, store, config)  # type: ignore[arg-type]
    for name, value in wanted._asdict().items():
        if name in ("max_grant_frames", "max_maptrack_frames"):
            assert -(1 << 31) <= value < 1 << 31, name
        elif name != "handle":
            assert 0 <= value < 1 << 32, name
    create.set_up_domain(xenctrl, store, config, 7)  # type: ignore[arg-type]


def make_all_of(config: DomainConfig) -> None:
    """All that is made of a configuration on the way to a domain."""
    store: Any = FakeXenstore()
    list(preflight.guest_type_problems(config, HOST))
    list(preflight.device_problems(config))
    list(device_checks.problems(config, XenHost(), store))
    needs_device_model(config)
    planned = plan(config)
    list(batches(planned.after_device_model))
    assert memory.needed_memkb(config, hap=True) > 0
    check_creation(config)
    state = BuildState(7, store_port=1, store_domid=0, console_port=2, console_domid=0)
    xenstore_nodes.create(store, config, state, is_alive=lambda _domid: True)
    assert all(len(value.encode()) <= 4096 for value in store.values.values())
    arguments("/qemu", config, 7, sockets=Sockets.of(7, XenHost().run_dir), state_fd=3)
    userdata.without_attached(config.json)
    attached = {name: config.json.get(name, []) for name in ("disks", "nics")}
    userdata.with_attached(config.json, attached)


@given(tree=trees(), changes=overrides)
def test_it_is_taken_or_refused(tree: dict[str, Any], changes: list[tuple[str, str]]) -> None:
    error = None
    try:
        found = xl.Config.from_json(tree)
        make_all_of(read_config(apply_overrides(found, changes) if changes else found))
    except LibxlsrError as refused:
        error = refused
    assert error is None or str(error).isprintable()


@pytest.mark.parametrize("tree", TREES, ids=["example", "pv", "pvh", "hvm"])
def test_as_it_is(tree: dict[str, Any]) -> None:
    make_all_of(read_config(xl.Config.from_json(tree)))


@pytest.mark.parametrize("tree", TREES, ids=["example", "pv", "pvh", "hvm"])
def test_a_null_is_as_good_as_nothing(tree: dict[str, Any]) -> None:
    """In each place that may be left out; a null in a list is an item of a wrong type."""
    for *above, last in list(places(tree)):
        without, with_null = copy.deepcopy(tree), copy.deepcopy(tree)
        if not isinstance(last, str):
            continue
        del at(without, above)[last]
        at(with_null, above)[last] = None
        assert outcome(with_null) == outcome(without), (*above, last)


def at(tree: Any, place: list[Any]) -> Any:
    for key in place:
        tree = tree[key]
    return tree


def outcome(tree: dict[str, Any]) -> object:
    """What the configuration comes to, or why it does not."""
    try:
        config = read_config(xl.Config.from_json(tree))
        make_all_of(config)
    except LibxlsrError as error:
        return str(error)
    return config
