"""A host to restore on."""

from __future__ import annotations

from pathlib import Path

from libxlsr.domain.host import XenHost
from libxlsr.xen.hostinfo import PhysInfo

HOST = PhysInfo(
    nr_cpus=2,
    max_cpu_id=1,
    nr_nodes=1,
    cpu_khz=2000000,
    total_bytes=4 << 30,
    free_bytes=1 << 30,
    scrub_bytes=0,
    outstanding_bytes=0,
    pv=True,
    hvm=True,
    hap=True,
    shadow=True,
    directio=False,
    grant_versions=2,
)


def host_below(root: Path) -> XenHost:
    """One whose files are below a directory, and which has none yet."""
    host = XenHost(root)
    for directory in (host.run_dir, host.lib_dir, host.log_dir, host.script_dir):
        directory.mkdir(parents=True)
    host.lock_file.parent.mkdir(parents=True)
    return host
