"""The domain's configuration as a whole.

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

from libxlsr.domain.config.devices import (
    Disk,
    Nic,
    Screen,
    read_disks,
    read_nics,
    read_screen,
)
from libxlsr.domain.config.hvm import Hvm, read_hvm
from libxlsr.domain.config.reader import Reader, without_nulls
from libxlsr.domain.config.unsupported import read_unsupported
from libxlsr.formats import xl
from libxlsr.formats.text import printable
from libxlsr.formats.xl_config import MEMKB_MAX
from libxlsr.xen.scheduling import SchedParams

LIBXL_MAX_GRANT_DEFAULT = 0xFFFFFFFF
"""Xen chooses."""

ALTP2M_COUNT_DEFAULT = 0xFFFFFFFF
"""LIBXL_ALTP2M_COUNT_DEFAULT: libxl chooses."""

ALTP2M_COUNT = 10
"""What it chooses (445253c853): what every Xen before 4.21 had."""

ALL_XENSTORE_FEATURES = 0xFFFFFFFF

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

XENSTORE_QUOTA = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")

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
    """A libxl_domain_config as far as this library needs it. Memory is in KiB."""

    domain_type: str
    """"pv", "pvh" or "hvm"."""

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
    """How many alternate P2Ms; 0 without a mode."""

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
    sched_params: SchedParams
    vcpu_hard_affinity: tuple[frozenset[int], ...]
    vcpu_soft_affinity: tuple[frozenset[int], ...]
    nodemap: frozenset[int]
    numa_placement: bool
    e820_host: bool
    xend_suspend_evtchn_compat: bool
    """Whether its drivers take the suspend event channel's node for a device (old ones on
    Windows do): it gets none."""

    xsdata: tuple[tuple[str, str], ...]
    platformdata: tuple[tuple[str, str], ...]
    xenstore_feature_mask: int
    """Which of xenstored's features it may have; `ALL_XENSTORE_FEATURES` without a mask."""

    xenstore_quota: tuple[tuple[str, int], ...]
    device_counts: dict[str, int]
    """How many there are of each kind of device that the configuration names."""

    hvm: Hvm | None
    """None for another type than "hvm"."""

    disks: tuple[Disk, ...]
    nics: tuple[Nic, ...]
    screen: Screen
    device_model: str | None
    """Its program; None for the one that Xen came with."""

    device_model_args: tuple[str, ...]
    device_model_args_of_type: tuple[str, ...]
    unsupported: tuple[str, ...]
    """What it asks for that can't be done here, in words."""

    json: dict[str, Any]
    """The whole as libxl keeps it for the running domain."""

    @property
    def hvm_container(self) -> bool:
        """Whether it runs in an HVM container (XEN_DOMCTL_CDF_hvm): "hvm" and "pvh"."""
        return self.domain_type != "pv"

    @property
    def targetmem_fudge_memkb(self) -> int:
        """What memory/target leaves out (libxl__get_targetmem_fudge)."""
        ballooned = self.hvm is not None and self.max_memkb > self.target_memkb
        return self.video_memkb + (1024 if ballooned else 0)


def read_config(found: xl.Config) -> DomainConfig:
    """The typed configuration. Raises StreamError for what is missing, of a wrong type or range.

    Every number is within what the C struct that it goes into can hold. A null counts as
    missing (`without_nulls`).
    """
    config = xl.Config(found.raw, without_nulls(found.json), found.offset)
    root = Reader(config)
    kind = config.domain_type
    is_hvm = kind == "hvm"
    c_info, b_info = root.below("c_info"), root.below("b_info")
    own = b_info.below(f"type.{kind}")
    max_vcpus = config.max_vcpus
    target_memkb = config.target_memkb
    video_memkb = b_info.optional_number("video_memkb", maximum=target_memkb)
    hvm = read_hvm(b_info, own) if is_hvm else None
    if video_memkb is None:
        video_memkb = 0 if hvm is None else hvm.default_video_memkb
    msr_relaxed = b_info.flag("arch_x86", "msr_relaxed", default=True)
    altp2m_mode = _altp2m_mode(b_info, own)
    return DomainConfig(
        domain_type=kind,
        name=config.name,
        uuid=uuid.UUID(config.uuid),
        max_vcpus=max_vcpus,
        avail_vcpus=b_info.bitmap("avail_vcpus", limit=max_vcpus) or frozenset({0}),
        max_memkb=config.max_memkb,
        target_memkb=target_memkb,
        video_memkb=video_memkb,
        shadow_memkb=config.shadow_memkb,
        hap=c_info.optional_flag("hap"),
        oos=c_info.flag("oos", default=True),
        driver_domain=c_info.flag("driver_domain", default=False),
        nested_hvm=b_info.flag("nested_hvm", default=False)
        or own.flag("nested_hvm", default=False),
        vpmu=b_info.flag("vpmu", default=False),
        msr_relaxed=msr_relaxed,
        disable_migrate=b_info.flag("disable_migrate", default=False),
        event_channels=b_info.number("event_channels", default=0, maximum=2**31 - 1) or 1023,
        max_grant_frames=_grant_limit(b_info, "max_grant_frames"),
        max_maptrack_frames=_grant_limit(b_info, "max_maptrack_frames"),
        max_grant_version=_optional_limit(b_info, "max_grant_version", maximum=15),
        vmtrace_buf_kb=b_info.number("vmtrace_buf_kb", default=0, maximum=VMTRACE_MAX_KB),
        altp2m_mode=altp2m_mode,
        altp2m_count=_altp2m_count(b_info, altp2m_mode),
        tsc_mode=_TSC_MODES[b_info.choice(_TSC_MODES, "tsc_mode")],
        timer_mode=_timer_mode(b_info, own),
        rtc_timeoffset=b_info.number(
            "rtc_timeoffset", default=0, minimum=-(2**31), maximum=2**32 - 1
        ),
        localtime=b_info.flag("localtime", default=False),
        slack_memkb=own.number("slack_memkb", default=0, maximum=MEMKB_MAX),
        pool_name=c_info.string("pool_name"),
        ssidref=c_info.number("ssidref", default=0, maximum=2**32 - 1) or SECINITSID_DOMU,
        ssid_labels=_ssid_labels(root),
        passthrough=c_info.string("passthrough") or "default",
        sched_params=_sched_params(b_info.below("sched_params")),
        vcpu_hard_affinity=b_info.bitmaps("vcpu_hard_affinity", limit=max_vcpus)
        or (b_info.bitmap("cpumap"),) * (max_vcpus if b_info.has("cpumap") else 0),
        vcpu_soft_affinity=b_info.bitmaps("vcpu_soft_affinity", limit=max_vcpus),
        nodemap=b_info.bitmap("nodemap"),
        numa_placement=b_info.flag("numa_placement", default=True),
        e820_host=own.flag("e820_host", default=False),
        xend_suspend_evtchn_compat=c_info.flag("xend_suspend_evtchn_compat", default=False),
        xsdata=_xenstore_pairs(c_info, "xsdata", reserved=TOOLSTACK_NODES),
        platformdata=_xenstore_pairs(c_info, "platformdata"),
        xenstore_feature_mask=b_info.number(
            "xenstore_feature_mask", default=ALL_XENSTORE_FEATURES, maximum=ALL_XENSTORE_FEATURES
        ),
        xenstore_quota=_xenstore_quota(b_info),
        device_counts=_device_counts(root),
        hvm=hvm,
        disks=read_disks(root),
        nics=read_nics(root, hvm=is_hvm),
        screen=read_screen(root, own, hvm=is_hvm),
        device_model=b_info.text("device_model"),
        device_model_args=b_info.texts("extra"),
        device_model_args_of_type=b_info.texts("extra_hvm" if is_hvm else "extra_pv"),
        unsupported=tuple(read_unsupported(b_info, own, hvm=is_hvm)),
        json=_for_userdata(config, video_memkb, msr_relaxed, hvm),
    )


def _for_userdata(
    config: xl.Config, video_memkb: int, msr_relaxed: bool, hvm: Hvm | None
) -> dict[str, Any]:
    """What xl and libxl__update_domain_configuration write down of what was decided."""
    tree = copy.deepcopy(config.json)
    tree.setdefault("c_info", {})["domid"] = INVALID_DOMID
    b_info = tree.setdefault("b_info", {})
    b_info["video_memkb"] = video_memkb
    b_info.setdefault("arch_x86", {})["msr_relaxed"] = str(msr_relaxed)
    if hvm is not None:
        b_info.setdefault("type.hvm", {}).setdefault("pirq", str(hvm.pirq))
    return tree


def _altp2m_mode(b_info: Reader, own: Reader) -> int:
    mode = _ALTP2M_MODES[b_info.choice(_ALTP2M_MODES, "altp2m")]
    return mode or int(own.flag("altp2m", default=False))  # what it was before 4.10


def _altp2m_count(b_info: Reader, mode: int) -> int:
    """Xen takes a count with a mode only, and none without one (5956e5b2d6)."""
    count = b_info.optional_number("altp2m_count", maximum=ALTP2M_COUNT_DEFAULT)
    if not mode:
        return 0
    if count in (None, ALTP2M_COUNT_DEFAULT):
        return ALTP2M_COUNT
    if count > 0xFFFF:
        raise b_info.wrong(("altp2m_count",), f"is {count}", "at most 65535")
    return count


def _timer_mode(b_info: Reader, own: Reader) -> int:
    for reader in (b_info, own):
        if reader.string("timer_mode") not in (None, "unknown"):
            return _TIMER_MODES[reader.choice(_TIMER_MODES, "timer_mode")]
    return _TIMER_MODES["no_delay_for_missed_ticks"]


def _grant_limit(b_info: Reader, member: str) -> int:
    value = _optional_limit(b_info, member, maximum=2**31 - 1)
    return -1 if value is None else value


def _optional_limit(b_info: Reader, member: str, *, maximum: int) -> int | None:
    value = b_info.optional_number(member, minimum=-1, maximum=LIBXL_MAX_GRANT_DEFAULT)
    if value is None or value in (-1, LIBXL_MAX_GRANT_DEFAULT):
        return None
    if value > maximum:
        raise b_info.wrong((member,), f"is {value}", f"at most {maximum}")
    return value


def _sched_params(reader: Reader) -> SchedParams:
    """-1 is libxl's default of each."""

    def number(name: str, maximum: int) -> int | None:
        value = reader.optional_number(name, minimum=-1, maximum=maximum)
        return None if value == -1 else value

    extratime = number("extratime", 2**31 - 1)
    return SchedParams(
        weight=number("weight", 0xFFFF),
        cap=number("cap", 0xFFFF),
        period=number("period", 2**31 - 1),
        budget=number("budget", 2**31 - 1),
        extratime=None if extratime is None else bool(extratime),
    )


def _ssid_labels(root: Reader) -> dict[str, str]:
    # device_model_ssid_label is a stub domain's.
    places = (("c_info", "ssid_label"), ("b_info", "exec_ssid_label"))
    labels = {".".join(place): root.string(*place) for place in places}
    return {place: label for place, label in labels.items() if label}


def _xenstore_pairs(
    c_info: Reader, member: str, *, reserved: Collection[str] = ()
) -> tuple[tuple[str, str], ...]:
    value = c_info.value(member)
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise c_info.wrong((member,), "is not an object", None)
    for key, text in value.items():
        shown = printable(key, 60)
        if not XENSTORE_KEY.match(key) or len(key) > XENSTORE_KEY_MAX:
            raise c_info.wrong((member,), f"has the key '{shown}'", "relative xenstore paths")
        if key.partition("/")[0] in reserved:
            raise c_info.wrong((member,), f"has the key '{shown}', which is the toolstack's", None)
        if not isinstance(text, str) or not _fits_xenstore(text):
            raise c_info.wrong((member,), f"has a value that xenstore can't hold ({shown})", None)
    return tuple(value.items())


def _fits_xenstore(text: str) -> bool:
    return len(text.encode()) <= XENSTORE_VALUE_MAX and "\0" not in text


def _xenstore_quota(b_info: Reader) -> tuple[tuple[str, int], ...]:
    """A libxl_xs_quota_list: each quota's name and value."""
    quota = []
    for item in b_info.objects("xenstore_quota", "quota"):
        name = item.text("name")
        if name is None or not XENSTORE_QUOTA.match(name):
            raise item.wrong(("name",), f"is '{printable(name or '', 40)}'", "a quota's name")
        quota.append((name, item.number("val", default=0, maximum=2**32 - 1)))
    return tuple(quota)


def _device_counts(root: Reader) -> dict[str, int]:
    counts = {kind: len(root.objects(kind)) for kind in DEVICE_LISTS}
    return {kind: count for kind, count in counts.items() if count}
