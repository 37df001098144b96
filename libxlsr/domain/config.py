"""What the domain's configuration says, typed, with libxl's defaults filled in.

Sources: libxl_types.idl; libxl__domain_create_info_setdefault, libxl__domain_build_info_setdefault
and libxl__domain_config_setdefault (libxl_create.c); libxl__arch_domain_build_info_setdefault
(libxl_x86.c). Two defaults are a restore's own (libxl_domain_create_restore): msr_relaxed and
hvm.pirq are on, as they were before an image could say so.
"""

from __future__ import annotations

import copy
import re
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from libxlsr.domain.devices.config import DeviceConfig, default_video_memkb, read_devices
from libxlsr.errors import StreamError
from libxlsr.formats import xl
from libxlsr.formats.text import printable
from libxlsr.formats.xl_config import MEMKB_MAX
from libxlsr.xen.scheduling import SchedParams

LIBXL_DEFAULT_GRANT = 0xFFFFFFFF
"""LIBXL_MAX_GRANT_DEFAULT: Xen chooses."""

INVALID_DOMID = 0xFFFFFFFF
"""What xl writes down where it leaves the choice of the id to Xen."""

SECINITSID_DOMU = 12
"""The label of an unlabelled guest where XSM is on (xen/xsm/flask/policy/initial_sids)."""

_TSC_MODES = {"default": 0, "always_emulate": 1, "native": 2}
_TIMER_MODES = {
    "delay_for_missed_ticks": 0,
    "no_delay_for_missed_ticks": 1,
    "no_missed_ticks_pending": 2,
    "one_missed_tick_pending": 3,
}
_ALTP2M_MODES = {"disabled": 0, "mixed": 1, "external": 2, "limited": 3}

XENSTORE_KEY = re.compile(r"[A-Za-z0-9_@:-]+(/[A-Za-z0-9_@:-]+)*\Z")
"""A relative xenstore path (docs/misc/xenstore.txt)."""

XENSTORE_KEY_MAX = 1024
"""Half of what a relative path may have (XENSTORE_REL_PATH_MAX, xs_wire.h); it gets a prefix."""

XENSTORE_VALUE_MAX = 2048
"""In bytes."""

TOOLSTACK_NODES = frozenset(
    {
        *("backend", "console", "control", "cpu", "device", "device-model", "domid", "hvmloader"),
        *("image", "libxl", "memory", "name", "store", "vm"),
    }
)
"""What in a domain's directory the toolstack writes itself, and believes later: destroying a domain
removes whatever ``vm`` names."""

VMTRACE_MAX_KB = (1 << 22) - 4
"""Xen counts the buffer in bytes, in whole pages, in 32 bits (struct xen_domctl_createdomain)."""

DEVICE_LISTS = (
    "disks",
    "nics",
    "pcidevs",
    "rdms",
    "dtdevs",
    "vfbs",
    "vkbs",
    "virtios",
    "vtpms",
    "p9s",
    "pvcallsifs",
    "vdispls",
    "vsnds",
    "channels",
    "usbctrls",
    "usbdevs",
)


@dataclass(frozen=True)
class DomainConfig:
    """A libxl_domain_config as far as a restore needs it. Memory is in KiB."""

    domain_type: str
    name: str
    uuid: uuid.UUID
    max_vcpus: int
    avail_vcpus: frozenset[int]
    max_memkb: int
    target_memkb: int
    video_memkb: int
    shadow_memkb: int | None
    """None: computed from memory and vCPUs (``memory.paging_memkb``)."""

    hap: bool | None
    """None: where the host has it."""

    oos: bool
    driver_domain: bool
    nested_hvm: bool
    vpmu: bool
    msr_relaxed: bool
    pirq: bool
    pae: bool
    disable_migrate: bool
    event_channels: int
    max_grant_frames: int
    """-1: Xen's default; so with the next."""

    max_maptrack_frames: int
    max_grant_version: int | None
    """None: the host's highest."""

    vmtrace_buf_kb: int
    altp2m_mode: int
    altp2m_count: int
    tsc_mode: int
    timer_mode: int
    rtc_timeoffset: int
    localtime: bool
    slack_memkb: int
    pool_name: str | None
    ssidref: int
    ssid_labels: dict[str, str]
    """XSM's labels by their places. They stand above the numbers, which another policy or boot
    may give to others."""

    passthrough: str
    device_model_version: str
    sched_params: SchedParams
    vcpu_hard_affinity: tuple[frozenset[int], ...]
    vcpu_soft_affinity: tuple[frozenset[int], ...]
    nodemap: frozenset[int]
    numa_placement: bool
    e820_host: bool
    xsdata: tuple[tuple[str, str], ...]
    platformdata: tuple[tuple[str, str], ...]
    devices: dict[str, int]
    """How many there are of each kind of device that the configuration names."""

    device_config: DeviceConfig
    """The devices themselves, as far as the device model has to do with them."""

    json: dict[str, Any]
    """The whole as libxl keeps it for the running domain."""

    @property
    def hvm(self) -> bool:
        """Whether it runs in an HVM container: "hvm" and "pvh"."""
        return self.domain_type != "pv"

    @property
    def targetmem_fudge_memkb(self) -> int:
        """What memory/target leaves out (libxl__get_targetmem_fudge)."""
        ballooned = self.domain_type == "hvm" and self.max_memkb > self.target_memkb
        return self.video_memkb + (1024 if ballooned else 0)

    def userdata_json(self) -> bytes:
        """The bytes of libxl's userdata "libxl-json"."""
        return xl.Config.from_json(self.json).raw


def without_nulls(value: Any) -> Any:
    """A JSON value without the members that are null, at any depth.

    Such a member counts as missing, as in libxl, which looks for a member of the type that it wants
    and takes its default where it finds none (libxl__json_map_get, libxl_json.c). A null in a list
    stays: it is no member that could be missing, and is refused like any other wrong item.
    """
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def read_config(found: xl.Config) -> DomainConfig:
    """The typed configuration. Raises StreamError for what is missing, of a wrong type or range.

    Every number is within what the C struct that it goes into can hold. A null is as good as
    nothing (`without_nulls`).
    """
    config = xl.Config(found.raw, without_nulls(found.json), found.offset)
    reader = _Reader(config)
    kind = config.domain_type
    own = ("b_info", f"type.{kind}")
    max_vcpus = config.max_vcpus
    target_memkb, max_memkb = config.target_memkb, config.max_memkb
    video_memkb = config.integer("b_info", "video_memkb", maximum=target_memkb)
    if video_memkb is None:
        video_memkb = default_video_memkb(config) if kind == "hvm" else 0
    msr_relaxed = reader.flag("b_info", "arch_x86", "msr_relaxed", default=True)
    pirq = reader.flag(*own, "pirq", default=True)
    return DomainConfig(
        domain_type=kind,
        name=config.name,
        uuid=uuid.UUID(config.uuid),
        max_vcpus=max_vcpus,
        avail_vcpus=reader.bitmap("b_info", "avail_vcpus", limit=max_vcpus) or frozenset({0}),
        max_memkb=max_memkb,
        target_memkb=target_memkb,
        video_memkb=video_memkb,
        shadow_memkb=config.shadow_memkb,
        hap=config.defbool("c_info", "hap"),
        oos=reader.flag("c_info", "oos", default=True),
        driver_domain=reader.flag("c_info", "driver_domain", default=False),
        nested_hvm=reader.flag("b_info", "nested_hvm", default=False)
        or reader.flag(*own, "nested_hvm", default=False),
        vpmu=reader.flag("b_info", "vpmu", default=False),
        msr_relaxed=msr_relaxed,
        pirq=pirq,
        pae=reader.flag(*own, "pae", default=True),
        disable_migrate=reader.flag("b_info", "disable_migrate", default=False),
        event_channels=config.integer("b_info", "event_channels", maximum=2**31 - 1) or 1023,
        max_grant_frames=reader.limit("b_info", "max_grant_frames"),
        max_maptrack_frames=reader.limit("b_info", "max_maptrack_frames"),
        max_grant_version=reader.optional_limit("b_info", "max_grant_version", maximum=15),
        vmtrace_buf_kb=config.integer("b_info", "vmtrace_buf_kb", maximum=VMTRACE_MAX_KB) or 0,
        altp2m_mode=reader.choice(_ALTP2M_MODES, "b_info", "altp2m", default="disabled")
        or int(reader.flag(*own, "altp2m", default=False)),
        altp2m_count=config.integer("b_info", "altp2m_count", maximum=0xFFFF) or 0,
        tsc_mode=reader.choice(_TSC_MODES, "b_info", "tsc_mode", default="default"),
        timer_mode=reader.timer_mode(own),
        rtc_timeoffset=config.integer(
            "b_info", "rtc_timeoffset", minimum=-(2**31), maximum=2**32 - 1
        )
        or 0,
        localtime=reader.flag("b_info", "localtime", default=False),
        slack_memkb=config.integer(*own, "slack_memkb", maximum=MEMKB_MAX) or 0,
        pool_name=config.string("c_info", "pool_name"),
        ssidref=config.integer("c_info", "ssidref", maximum=2**32 - 1) or SECINITSID_DOMU,
        ssid_labels=reader.ssid_labels(),
        passthrough=config.string("c_info", "passthrough") or "default",
        device_model_version=config.string("b_info", "device_model_version") or "qemu_xen",
        sched_params=reader.sched_params(),
        vcpu_hard_affinity=reader.bitmaps("b_info", "vcpu_hard_affinity", limit=max_vcpus)
        or (reader.bitmap("b_info", "cpumap"),)
        * (max_vcpus if reader.has("b_info", "cpumap") else 0),
        vcpu_soft_affinity=reader.bitmaps("b_info", "vcpu_soft_affinity", limit=max_vcpus),
        nodemap=reader.bitmap("b_info", "nodemap"),
        numa_placement=reader.flag("b_info", "numa_placement", default=True),
        e820_host=reader.flag(*own, "e820_host", default=False),
        xsdata=reader.pairs("c_info", "xsdata", reserved=TOOLSTACK_NODES),
        platformdata=reader.pairs("c_info", "platformdata"),
        devices=reader.devices(),
        device_config=read_devices(config),
        json=_for_userdata(config, video_memkb, msr_relaxed, pirq if kind == "hvm" else None),
    )


def _for_userdata(
    config: xl.Config, video_memkb: int, msr_relaxed: bool, pirq: bool | None
) -> dict[str, Any]:
    """What xl and libxl__update_domain_configuration write down of what was decided."""
    tree = copy.deepcopy(config.json)
    tree.setdefault("c_info", {})["domid"] = INVALID_DOMID
    b_info = tree.setdefault("b_info", {})
    b_info["video_memkb"] = video_memkb
    b_info.setdefault("arch_x86", {})["msr_relaxed"] = str(msr_relaxed)
    if pirq is not None:
        b_info.setdefault("type.hvm", {}).setdefault("pirq", str(pirq))
    return tree


def _fits_xenstore(text: str) -> bool:
    return len(text.encode()) <= XENSTORE_VALUE_MAX and "\0" not in text


class _Reader:
    """Reads members that ``xl.Config`` has no name for."""

    def __init__(self, config: xl.Config) -> None:
        self._config = config

    def has(self, *path: str) -> bool:
        return self._config.value(*path) is not None

    def flag(self, *path: str, default: bool) -> bool:
        value = self._config.defbool(*path)
        return default if value is None else value

    def choice(self, names: dict[str, int], *path: str, default: str) -> int:
        value = self._config.string(*path) or default
        if value not in names:
            raise self._wrong(path, f"is '{printable(value, 40)}'", ", ".join(names))
        return names[value]

    def timer_mode(self, own: tuple[str, ...]) -> int:
        for path in (("b_info", "timer_mode"), (*own, "timer_mode")):
            if self._config.string(*path) not in (None, "unknown"):
                return self.choice(_TIMER_MODES, *path, default="")
        return _TIMER_MODES["no_delay_for_missed_ticks"]

    def limit(self, *path: str) -> int:
        value = self.optional_limit(*path, maximum=2**31 - 1)
        return -1 if value is None else value

    def optional_limit(self, *path: str, maximum: int) -> int | None:
        value = self._config.integer(*path, minimum=-1, maximum=LIBXL_DEFAULT_GRANT)
        if value is None or value in (-1, LIBXL_DEFAULT_GRANT):
            return None
        if value > maximum:
            raise self._wrong(path, f"is {value}", f"at most {maximum}")
        return value

    def sched_params(self) -> SchedParams:
        """-1 is libxl's default of each."""

        def number(name: str, maximum: int) -> int | None:
            path = ("b_info", "sched_params", name)
            value = self._config.integer(*path, minimum=-1, maximum=maximum)
            return None if value == -1 else value

        extratime = number("extratime", 2**31 - 1)
        return SchedParams(
            weight=number("weight", 0xFFFF),
            cap=number("cap", 0xFFFF),
            period=number("period", 2**31 - 1),
            budget=number("budget", 2**31 - 1),
            extratime=None if extratime is None else bool(extratime),
        )

    def ssid_labels(self) -> dict[str, str]:
        # device_model_ssid_label is a stub domain's.
        places = (("c_info", "ssid_label"), ("b_info", "exec_ssid_label"))
        labels = {".".join(place): self._config.string(*place) for place in places}
        return {place: label for place, label in labels.items() if label}

    def bitmap(self, *path: str, limit: int = 1 << 16) -> frozenset[int]:
        value = self._config.value(*path)
        return frozenset() if value is None else self._members(value, path, limit)

    def bitmaps(self, *path: str, limit: int) -> tuple[frozenset[int], ...]:
        value = self._config.value(*path)
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > limit:
            raise self._wrong(path, "is no list of that many bitmaps", f"at most {limit}")
        return tuple(self._members(item, path, 1 << 16) for item in value)

    def _members(self, value: object, path: tuple[str, ...], limit: int) -> frozenset[int]:
        if not isinstance(value, list) or not all(
            isinstance(item, int) and not isinstance(item, bool) and 0 <= item < limit
            for item in value
        ):
            raise self._wrong(path, "is no bitmap", f"a list of numbers from 0 to {limit - 1}")
        return frozenset(value)

    def pairs(self, *path: str, reserved: Collection[str] = ()) -> tuple[tuple[str, str], ...]:
        value = self._config.value(*path)
        if value is None:
            return ()
        if not isinstance(value, dict):
            raise self._wrong(path, "is no object", None)
        for key, text in value.items():
            shown = printable(key, 60)
            if not XENSTORE_KEY.match(key) or len(key) > XENSTORE_KEY_MAX:
                raise self._wrong(path, f"has the key '{shown}'", "relative xenstore paths")
            if key.partition("/")[0] in reserved:
                raise self._wrong(path, f"has the key '{shown}', which is the toolstack's", None)
            if not isinstance(text, str) or not _fits_xenstore(text):
                raise self._wrong(path, f"has a value that xenstore can't hold ({shown})", None)
        return tuple(value.items())

    def devices(self) -> dict[str, int]:
        counts = {}
        for kind in DEVICE_LISTS:
            value = self._config.value(kind)
            if value is not None and not isinstance(value, list):
                raise self._wrong((kind,), "is no list", None)
            if value and not all(isinstance(item, dict) for item in value):
                raise self._wrong((kind,), "is no list of objects", None)
            if value:
                counts[kind] = len(value)
        return counts

    def _wrong(self, path: tuple[str, ...], what: str, expected: str | None) -> StreamError:
        return StreamError(
            f"{'.'.join(path)} {what}",
            offset=self._config.offset,
            record="xl domain configuration",
            expected=expected,
        )
