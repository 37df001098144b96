"""What is said where the host can't give a guest the CPU that it was saved with."""

from __future__ import annotations

import errno
import struct
import tempfile
from pathlib import Path
from typing import Any

import pytest

from libxlsr.domain import cpu_policy
from libxlsr.domain.cpu_policy import set_cpu_policy
from libxlsr.domain.host import XenHost
from libxlsr.errors import TargetError
from libxlsr.formats import libxc
from libxlsr.xen.xenguest import PolicyRefused

INTEL, AMD = "GenuineIntel", "AuthenticAMD"
REFUSED = PolicyRefused(errno.EINVAL, leaf=1, subleaf=None, msr=None)


def leaves_of(vendor: bytes) -> bytes:
    b, d, c = struct.unpack("<3I", vendor)
    return struct.pack("<12I", 0, 0xFFFFFFFF, 0xD, b, c, d, 1, 0xFFFFFFFF, 1, 2, 3, 4)


def record(kind: int, body: bytes) -> bytes:
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


@pytest.fixture
def refused_by_xen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """Xen takes no policy; those that it was given."""
    given = []

    def refuse(_xenctrl: Any, domid: int, leaves: bytes, msrs: bytes) -> PolicyRefused:
        assert domid == 7
        given.append((leaves, msrs))
        return REFUSED

    monkeypatch.setattr(cpu_policy, "set_domain_cpu_policy", refuse)
    return given


def error_of(policy: bytes, *, host_vendor: str | None) -> str:
    headers = libxc.ImageHeader().encode() + libxc.DomainHeader(2, 4, 17).encode()
    stream = headers + record(libxc.RecordType.X86_CPUID_POLICY, policy)
    with tempfile.TemporaryFile() as file:
        file.write(b"before" + stream + record(libxc.RecordType.STATIC_DATA_END, b""))
        file.flush()
        xenctrl: Any = None
        with pytest.raises(TargetError) as caught:
            set_cpu_policy(xenctrl, 7, file.fileno(), len("before"), host_vendor=host_vendor)
    return str(caught.value)


def test_another_vendors(refused_by_xen: list[tuple[bytes, bytes]]) -> None:
    policy = leaves_of(AMD.encode())
    error = error_of(policy, host_vendor=INTEL)
    assert "from a host with another vendor's CPU: it is for AMD, and this host has Intel" in error
    assert refused_by_xen == [(policy, b"")]


@pytest.mark.parametrize(
    ("vendor", "host_vendor"),
    [(INTEL.encode(), INTEL), (AMD.encode(), None), (b"\0" * 12, INTEL)],
)
@pytest.mark.usefixtures("refused_by_xen")
def test_the_same_or_one_that_is_not_known(vendor: bytes, host_vendor: str | None) -> None:
    error = error_of(leaves_of(vendor), host_vendor=host_vendor)
    assert "CPUID leaf 0x1 does not fit" in error
    assert "another vendor" not in error


@pytest.mark.usefixtures("refused_by_xen")
def test_a_policy_without_a_vendor() -> None:
    assert "does not fit" in error_of(struct.pack("<6I", 1, 0, 1, 2, 3, 4), host_vendor=INTEL)


@pytest.mark.parametrize(
    ("cpuinfo", "vendor"),
    [
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel\t: 1\n", AMD),
        ("vendor_id\t:   Shanghai  \n", "  Shanghai  "),
        ("processor\t: 0\n", None),
        (None, None),
    ],
)
def test_the_hosts_vendor(tmp_path: Path, cpuinfo: str | None, vendor: str | None) -> None:
    if cpuinfo is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc" / "cpuinfo").write_text(cpuinfo)
    assert XenHost(tmp_path).cpu_vendor() == vendor
