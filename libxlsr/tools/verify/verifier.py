"""Verifies one image: opens it, walks over it, and sums up what was found."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from libxlsr.errors import TargetError
from libxlsr.formats import libxl
from libxlsr.formats.hvm_params import HvmParams
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_pv import X86PvP2mFrames, X86PvVcpu
from libxlsr.formats.libxc_records import RecordBody
from libxlsr.formats.page_data import PageData
from libxlsr.formats.recognise import SIZE
from libxlsr.formats.records import LibxlBody
from libxlsr.libxc.frame_ranges import CountedFrames, first_ranges
from libxlsr.libxc.visitor import Record, Wanted
from libxlsr.source.flow_reader import CompressionDamaged
from libxlsr.source.open_image import OpenedImage, open_image
from libxlsr.tools.verify.checks import Checks
from libxlsr.tools.verify.findings import Finding, Findings, Severity, message_of
from libxlsr.tools.verify.image_walker import ImageWalker

if TYPE_CHECKING:  # half as long to import as all the rest, and seldom wanted
    from libxlsr.tools.verify.digest import GuestDigest

FORMATS = ("auto", "xl", "libxl", "libxc", "legacy")
"""What ``expected`` may be."""

V = TypeVar("V", bound="Verification")


class Verified(NamedTuple):
    """What there is to say about one image."""

    kind: str | None
    """"xl", "libxl", "libxc", "legacy", or None for what is no image."""
    compression: str | None
    full: bool
    """Whether each byte was read. If not, pages were passed over."""
    findings: tuple[Finding, ...]
    dropped: dict[str, int]
    """By id, how many more findings there were that are not in ``findings``."""
    errors: int
    warnings: int
    notes: int
    size: int
    """Plain bytes that were walked over."""
    records: dict[str, int]
    """How many there are, by layer."""
    frames: dict[str, int]
    """How many there are of each type in the end."""
    guest: str | None = None
    """"pv", "pvh", "hvm", or "hvm or pvh" where there is no configuration."""
    name: str | None = None
    xen_version: str | None = None
    """Of the Xen that saved it, "4.17"."""
    libxc_version: int | None = None
    sent_again: int = 0
    """Copies of frames that later ones superseded."""
    checkpoints: int = 0
    digest: str | None = None
    """Of what the guest sees; None if it wasn't asked for or there are errors."""

    @property
    def good(self) -> bool:
        """Whether there were no errors."""
        return self.errors == 0


def verify(
    fd: int, *, full: bool = False, digest: bool = False, expected: str = "auto"
) -> Verified:
    """Verify the image on ``fd``, from its position to the end of the file.

    ``full`` reads every byte of a file, where pages are otherwise passed over; a pipe and what is
    compressed are always read whole. ``digest`` reads everything too. ``expected`` is one of
    FORMATS. Raises TargetError where the fd can't be read and BackendUnavailable for a codec that
    is not installed; whatever is wrong with the bytes is a finding.
    """
    if not digest:
        return run_verification(fd, Verification, full=full, expected=expected)[0]
    from libxlsr.tools.verify.digest import GuestDigest

    with closing(GuestDigest()) as guest_digest:
        return run_verification(fd, Verification, digest=guest_digest, expected=expected)[0]


def run_verification(
    fd: int,
    make: Callable[..., V],
    *,
    full: bool = False,
    digest: GuestDigest | None = None,
    expected: str = "auto",
) -> tuple[Verified, V | None]:
    """As verify(), with the visitor that ``make(findings, full=…, digest=…)`` makes.

    The visitor is None where there was nothing to walk over. Closing ``digest`` is the caller's.
    """
    findings = Findings()
    full = full or digest is not None
    try:
        image = open_image(fd, full=full)
    except CompressionDamaged as error:
        findings.add(Finding("compression", message_of(error)))
        return _verified(findings, None, full=True), None
    if expected == "legacy" and image.kind is None:
        image = image._replace(kind="legacy")  # some have no mark to know them by
    full = image.reader.reads_everything or image.kind == "legacy"
    unfit = _unfit(image, expected)
    if unfit is not None:
        findings.add(unfit)
        return _verified(findings, image, full=full), None
    visitor = make(findings, full=full, digest=digest)
    try:
        visitor.opened(str(image.kind), image.compression)
        ImageWalker(image.reader, visitor).run(str(image.kind))
    except OSError as error:
        raise TargetError(
            "can't keep the frames' digests",
            errno=error.errno,
            remedy="let TMPDIR be a directory with room for them",
        ) from error
    return _verified(findings, image, full=full, visitor=visitor), visitor


class Verification(Checks):
    """The checks, and what of an image's bytes they and the digest need."""

    def __init__(self, findings: Findings, *, full: bool, digest: GuestDigest | None) -> None:
        super().__init__(findings)
        self._full = full
        self._digest = digest
        self._differing = CountedFrames()
        self.digest: str | None = None

    def wanted(self, batch: PageData) -> Wanted:
        if self._digest is not None:
            return Wanted.EVERYTHING
        return Wanted.PAGE_TABLES if self._full else Wanted.NOTHING

    def pages(self, first_gfn: int, data: bytes | memoryview) -> None:
        assert self._digest is not None
        if self.comparing:
            for gfn in self._digest.differing(first_gfn, data):
                self._differing.add(gfn)
        else:
            self._digest.pages(first_gfn, data)

    def libxc_body(self, record: Record, body: RecordBody, data: memoryview) -> None:
        super().libxc_body(record, body, data)
        if self._digest is None:
            return
        if isinstance(body, X86PvVcpu):
            self._digest.state(f"{record.name} {body.vcpu_id}", data)
        elif not isinstance(body, (HvmParams, X86PvP2mFrames)):
            self._digest.state(record.name, data)

    def libxl_body(self, record: Record, body: LibxlBody) -> None:
        if isinstance(body, libxl.EmulatorXenstoreData):
            body = body._replace(pairs=tuple(sorted(body.pairs)))
        if self._digest is not None:
            self._digest.state(record.name, body.encode())

    def emulator_context(self, record: Record, head: libxl.EmulatorContext, size: int) -> None:
        super().emulator_context(record, head, size)
        if self._digest is not None:
            self._digest.start_state(record.name, head.encode())

    def wants_emulator_state(self) -> bool:
        return self._digest is not None or super().wants_emulator_state()

    def emulator_state(self, piece: bytes | memoryview) -> None:
        super().emulator_state(piece)
        if self._digest is not None:
            self._digest.continue_state(piece)

    def ended(self, *, whole: bool, offset: int) -> None:
        super().ended(whole=whole, offset=offset)
        if self._differing.number:
            shown = first_ranges(self._differing.ranges)
            self.report("verify-mismatch", f"{self._differing.number} frames: {shown}")
        guest, memory = self.libxc, self.memory
        if self._digest is None or not whole or guest is None or memory is None:
            return
        # Of what later records add to, all is taken; of all others the last one counts.
        if guest.hvm_params is not None:
            params = HvmParams(tuple(sorted(guest.hvm_params.items())))
            self._digest.state(RecordType.HVM_PARAMS.name, params.encode())
        if guest.p2m.covered:
            p2m = guest.p2m.whole().encode()
            self._digest.state(RecordType.X86_PV_P2M_FRAMES.name, p2m)
        if not memory.frames.untracked:
            self.digest = self._digest.finish(memory.frames, pv=guest.is_pv)


def _unfit(image: OpenedImage, expected: str) -> Finding | None:
    """Why there is nothing to walk over; None where there is."""
    kind = image.kind
    if kind is None and len(head := image.reader.peek(SIZE)) < SIZE:
        message = f"the image ends {len(head)} bytes into its header: it is truncated or empty"
        return Finding("truncated", message, offset=len(head))
    if kind is None:
        message = (
            "this is no Xen image, expected an xl, libxl or libxc header, or compressed data; a "
            "bare HVM guest's from a 32-bit Xen 4.5 or older has no mark: libxlsr verify --format "
            "legacy and libxlsr convert --legacy take it"
        )
        return Finding("unrecognised", message, offset=0)
    if expected not in ("auto", kind):
        return Finding(
            "wrong-format",
            f"this is {'an' if kind == 'xl' else 'a'} {kind} image, expected {expected}",
            offset=0,
        )
    return None


def _verified(
    findings: Findings,
    image: OpenedImage | None,
    *,
    full: bool,
    visitor: Verification | None = None,
) -> Verified:
    verified = Verified(
        kind=None if image is None else image.kind,
        compression=None if image is None else image.compression,
        full=full,
        findings=tuple(findings.kept),
        dropped=findings.dropped,
        errors=findings.count(Severity.ERROR),
        warnings=findings.count(Severity.WARNING),
        notes=findings.count(Severity.NOTE),
        size=0 if image is None else image.reader.offset,
        records={},
        frames={},
    )
    if visitor is None:
        return verified
    guest, memory = visitor.libxc, visitor.memory
    return verified._replace(
        guest=visitor.guest,
        name=visitor.name,
        xen_version=None if guest is None else guest.xen_version,
        libxc_version=None if visitor.image is None else visitor.image.version,
        records=dict(visitor.records),
        frames={} if memory is None else memory.types(),
        sent_again=0 if memory is None else memory.sent_again,
        checkpoints=visitor.checkpoints,
        digest=visitor.digest if verified.good else None,
    )
