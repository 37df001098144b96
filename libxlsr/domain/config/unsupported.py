"""What a configuration asks for that no restore here can give, in words."""

from __future__ import annotations

from collections.abc import Iterator

from libxlsr.domain.config.hvm import BIOSES
from libxlsr.domain.config.reader import Reader
from libxlsr.formats.text import printable

_HOST_RESOURCES = {"ioports": "I/O ports", "irqs": "IRQs", "iomem": "I/O memory"}


def read_unsupported(b_info: Reader, own: Reader, *, hvm: bool) -> Iterator[str]:
    """Each as the part of a sentence. ``own`` is b_info's part for the guest's type."""
    # "unknown" is what libxl writes for a guest that has none (Xen 4.21 and newer, 3c8fccd30d).
    version = b_info.text("device_model_version")
    if version not in (None, "unknown", "qemu_xen"):
        yield f"its device model is {printable(version, 40)}, which no Xen runs today"
    if b_info.flag("device_model_stubdomain", default=False):
        yield "its device model runs in a stub domain, which can't be restored"
    if b_info.flag("dm_restrict", default=False):
        yield "its device model is restricted (dm_restrict), which can't be restored"
    for member, what in _HOST_RESOURCES.items():
        if b_info.value(member):
            yield f"it has {what} of the host, which can't be restored"
    if b_info.flag("trap_unmapped_accesses", default=False):  # as libxl does on x86 (libxl_x86.c)
        yield (
            "it traps accesses to unmapped memory, which x86 guests can't "
            "(drop it with --config-override b_info.trap_unmapped_accesses=False)"
        )
    if hvm:  # libxl, too, runs the device model of others as root
        yield from _read_unsupported_hvm(b_info, own)


def _read_unsupported_hvm(b_info: Reader, own: Reader) -> Iterator[str]:
    user = b_info.text("device_model_user")
    if user is not None:
        yield (
            f"its device model runs as the user {printable(user, 40)}, which can't be restored "
            "(let it be root with --config-override b_info.device_model_user=null)"
        )
    if own.choice(BIOSES, "bios") == "rombios":
        yield "its BIOS is rombios, which no device model has today"
    if own.flag("spice", "enable", default=False):
        yield "it has a SPICE display, which can't be restored"
    if own.flag("gfx_passthru", default=False):
        yield "it has a graphics card passed through, which can't be restored"
