"""What guests leave in dom0: compared before and after, to prove that nothing was left."""

from __future__ import annotations

from .host import Host

_LOOK = """\
xl list | tail -n +2 | awk '{print "domain", $1, $2}'
for directory in /local/domain /libxl /vm; do
    xenstore-list $directory 2>/dev/null | sed "s,^,xenstore $directory/,"
done
pgrep -a 'qemu-system|libxl-save-help' | sed 's/^/process /'
# libxl keeps the last domids in domid-history.
find /var/lib/xen /run/xen -type f -o -type s | grep -v domid-history | sed 's/^/file /'
"""


def residue(host: Host) -> set[str]:
    """Domains, their xenstore nodes, device models, helpers and files in dom0, each as a line."""
    return set(host.run(_LOOK).stdout.splitlines())
