"""What the grammar alone does not say: what each guest must have, and what belongs together.

The walk tells of each record; what depends on several of them is looked at when it is over.
"""

from __future__ import annotations

from typing import Union

from libxlsr.errors import StreamError
from libxlsr.formats import libxc, libxl, xl
from libxlsr.formats.hvm_context import HvmContext
from libxlsr.formats.hvm_params import (
    HVM_PARAM_BUFIOREQ_PFN,
    HVM_PARAM_CONSOLE_PFN,
    HVM_PARAM_IOREQ_PFN,
    HVM_PARAM_STORE_PFN,
    HvmParams,
    hvm_param_name,
)
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_pv import X86PvP2mFrames, X86PvVcpu
from libxlsr.formats.libxc_records import RecordBody
from libxlsr.formats.page_data import PageData
from libxlsr.formats.records import LIBXC, Once
from libxlsr.libxc import rules
from libxlsr.libxc.guest import ConfiguredGuest, Guest
from libxlsr.libxc.visitor import Problem, Record
from libxlsr.tools.verify.findings import Finding, Findings, message_of
from libxlsr.tools.verify.hvm_context_checks import hvm_context_findings
from libxlsr.tools.verify.image_visitor import ImageVisitor
from libxlsr.tools.verify.memory_checks import MemoryChecks

_T = RecordType
_X = libxl.RecordType

_NEEDED_PARAMS = (HVM_PARAM_STORE_PFN, HVM_PARAM_CONSOLE_PFN)
_FRAME_PARAMS = (*_NEEDED_PARAMS, HVM_PARAM_IOREQ_PFN, HVM_PARAM_BUFIOREQ_PFN)

SectionKey = Union[int, tuple[int, int]]


class Checks(ImageVisitor):
    """Makes findings of what a walk meets."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._record: Record | None = None
        self.config: xl.Config | None = None
        self.image: libxc.ImageHeader | None = None
        self.libxc: Guest | None = None
        """What libxc's part says of the guest; None before its headers were read."""
        self.memory: MemoryChecks | None = None
        self.checkpoints = 0
        self.records = {"libxl": 0, "libxc": 0}
        self.comparing = False
        """Whether VERIFY came: frames are sent to be compared from then on, not to be stored."""
        self.broke_off = False
        """Whether the stream broke off after a whole checkpoint."""
        self._compression: str | None = None
        self._legacy = False
        self._domain_type: str | None = None
        self._max_vcpus: int | None = None
        self._place = 0
        self._previous: int | None = None
        self._section: set[SectionKey] = set()
        self._policies: set[int] = set()
        self._vcpus: dict[int, set[int]] = {}
        self._vcpu_records: dict[int, Record] = {}  # each vCPU's last one
        self._frame_param_records: dict[int, Record] = {}  # the last that names each frame
        self._libxc_ended = False  # from then on libxl can't go back to a checkpoint any more
        self._emulator_seen = False
        self._expect_magic = False

    @property
    def guest(self) -> str | None:
        """ "pv", "pvh", "hvm", or "hvm or pvh" where only the configuration could tell."""
        if self._domain_type is not None:
            return self._domain_type
        return None if self.libxc is None else "hvm or pvh"

    @property
    def name(self) -> str | None:
        """The domain's name, if it is a fit one."""
        try:
            return None if self.config is None else self.config.name
        except StreamError:
            return None

    @property
    def _converted(self) -> bool:
        return self.libxc is not None and self.libxc.domain.is_legacy_converted

    @property
    def _hvm_params_so_far(self) -> dict[int, int]:
        return {} if self.libxc is None else self.libxc.hvm_params or {}

    # -- findings

    def report(self, finding_id: str, message: str, record: Record | None = None) -> None:
        """A finding at ``record``, at the one that is being looked at, or about the whole image."""
        record = self._record if record is None else record
        self._findings.add(
            Finding(
                finding_id,
                message,
                offset=None if record is None else record.offset,
                record=None if record is None else str(record),
                layer=None if record is None else record.layer,
                number=None if record is None else record.number,
            )
        )

    def _report_config(self, finding_id: str, message: str, start: int = 0) -> None:
        """A finding ``start`` bytes into what holds the configuration, which is no record."""
        offset = xl.FIXED_HEADER_SIZE + start
        self._findings.add(
            Finding(finding_id, message, offset=offset, record="xl optional data", layer="xl")
        )

    def problem(self, problem: Problem) -> None:
        rule, message = problem.rule, message_of(problem.error)
        failover = self.checkpoints and not self._libxc_ended and self._compression is None
        if rule == "truncated" and failover:
            rule = "ends-at-checkpoint"
            message = f"{message}; checkpoint {self.checkpoints} is whole"
            self.broke_off = True
        self._add_error(rule, message, problem.error, problem.number)

    def _add_error(
        self, finding_id: str, message: str, error: StreamError, number: int | None
    ) -> None:
        place = error.record
        layer = place.split()[0] if place and place.split()[0] in ("xl", "libxl", "libxc") else None
        self._findings.add(
            Finding(
                finding_id,
                message,
                offset=error.offset,
                record=place,
                layer=layer,
                number=number,
            )
        )

    # -- headers

    def opened(self, kind: str, compression: str | None) -> None:
        self._compression = compression
        self._legacy = kind == "legacy"
        if self._legacy:
            self._findings.add(Finding("legacy-image", "it is converted on the way", offset=0))
        elif kind != "xl":
            self.report("no-config", f"the image begins with its {kind} header")

    def optional_data(self, data: xl.OptionalData) -> None:
        config = self.config = data.config
        try:
            self._domain_type = config.domain_type
            self._max_vcpus = config.max_vcpus
            config.check()
        except StreamError as error:
            self._add_error("xl-config", message_of(error), error, None)
        if data.tail:
            self._report_config(
                "xl-optional-data-tail", f"{len(data.tail)} bytes", data.tail_offset
            )

    def image_header(self, header: libxc.ImageHeader) -> None:
        self.image = header

    def configured(self) -> ConfiguredGuest:
        return ConfiguredGuest(self._domain_type, self._max_vcpus)

    def domain_header(self, guest: Guest) -> None:
        self.libxc = guest
        self.memory = MemoryChecks(guest, self.report)
        self._domain_type = guest.domain_type
        if self._legacy and self.config is None:
            self.report("no-config", "it has none in JSON")
        if guest.domain.is_legacy_converted and not self._legacy:
            self.report(
                "legacy-converted", f"by version {guest.domain.xen_minor} of convert-legacy-stream"
            )

    # -- records

    def record(self, record: Record) -> None:
        self._record = record
        self.records[record.layer] += 1
        if record.type & libxc.REC_TYPE_OPTIONAL:
            self.report(f"{record.layer}-optional-record", f"{record.length} bytes")
        elif record.layer == "libxc":
            self._libxc_record(record.type)
        else:
            self._section.add(-record.type)  # apart from libxc's types, which are positive
            try:
                rules.emulator_unexpected(self._domain_type, record.type, record.offset)
            except StreamError as error:
                self.report("emulator-unexpected", message_of(error))

    def _libxc_record(self, record_type: int) -> None:
        if record_type == self._previous == _T.PAGE_DATA:
            return  # as nearly all are
        self._previous = record_type
        row = LIBXC[record_type]
        # X86_PV_P2M_FRAMES may come again when the guest grows.
        if row.place is not None and record_type != _T.X86_PV_P2M_FRAMES:
            # (convert-legacy-stream keeps the order of the old image.)
            if row.place < self._place and not self._converted:
                self.report("libxc-unusual-order", "Xen writes it earlier")
            self._place = max(self._place, row.place)
        if row.once is Once.STATE and record_type in self._section:
            self.report("duplicate-record", "it came before in this state of the domain")
        self._section.add(record_type)
        self._libxc_ended |= record_type == _T.END
        if record_type == _T.VERIFY:
            self.comparing = True
            self.report("verify-pass", "all of memory follows once more")
        if record_type in (_T.X86_CPUID_POLICY, _T.X86_MSR_POLICY):
            self._policies.add(record_type)
        elif record_type == _T.STATIC_DATA_END and len(self._policies) < 2 and not self._legacy:
            self.report("policy-missing", "before STATIC_DATA_END")

    def libxc_body(self, record: Record, body: RecordBody, data: memoryview) -> None:
        memory = self.memory
        assert memory is not None
        if isinstance(body, X86PvP2mFrames):
            memory.p2m_frames(record, body)
        elif isinstance(body, X86PvVcpu):
            self._vcpu_records[body.vcpu_id] = record
            self._vcpu(body)
        elif isinstance(body, HvmContext):
            self._hvm_context(body)
        elif isinstance(body, HvmParams):
            named = (index for index, _ in body.params if index in _FRAME_PARAMS)
            self._frame_param_records.update(dict.fromkeys(named, record))
            self._hvm_params(body)

    def page_data(self, record: Record, batch: PageData) -> None:
        assert self.memory is not None
        self.memory.page_data(batch)

    def emulator_context(self, record: Record, head: libxl.EmulatorContext, size: int) -> None:
        self._emulator_seen = True
        self._expect_magic = head.emulator_id == libxl.EMULATOR_QEMU_UPSTREAM
        if size == 0 and self._expect_magic:
            self._check_emulator_state(b"")

    def wants_emulator_state(self) -> bool:
        return self._expect_magic

    def emulator_state(self, piece: bytes | memoryview) -> None:
        if self._expect_magic:
            self._check_emulator_state(piece)
        self._expect_magic = False

    def _check_emulator_state(self, state: bytes | memoryview) -> None:
        try:
            rules.emulator_empty(state, None)
        except StreamError as error:
            self.report("emulator-empty", message_of(error))

    def _vcpu(self, body: X86PvVcpu) -> None:
        kinds = self._vcpus.setdefault(body.vcpu_id, set())
        if (body.type, body.vcpu_id) in self._section:
            self.report("duplicate-record", f"vCPU {body.vcpu_id} had one in this state")
        self._section.add((body.type, body.vcpu_id))
        kinds.add(body.type)
        if not body.context:
            self.report("empty-record", f"vCPU {body.vcpu_id}")

    def _hvm_context(self, body: HvmContext) -> None:
        for finding_id, message in hvm_context_findings(body, self._domain_type, self._available()):
            self.report(finding_id, message)

    def _hvm_params(self, body: HvmParams) -> None:
        if not body.params:
            self.report("empty-record", "no parameters")
            return
        params = self._hvm_params_so_far
        missing = [hvm_param_name(index) for index in _NEEDED_PARAMS if index not in params]
        if missing:
            self.report("hvm-param-missing", ", ".join(missing))

    # -- the ends of things

    def checkpoint(self, number: int) -> None:
        self.checkpoints = number
        if number > 1:
            missing = [name for kind, name in self._state() if kind not in self._section]
            if self._domain_type == "hvm" and -_X.EMULATOR_CONTEXT not in self._section:
                missing.append(_X.EMULATOR_CONTEXT.name)
            if missing:
                self.report(
                    "checkpoint-partial", f"checkpoint {number} has no {', '.join(missing)}"
                )
        self._section = set()
        self._place = 0

    def _state(self) -> list[tuple[int, str]]:
        """Type and name of what each state of such a domain has beside its memory."""
        guest = "pv" if self.libxc is not None and self.libxc.is_pv else "hvm"
        memory = LIBXC[_T.PAGE_DATA].place or 0
        return [
            (row.type, row.name)
            for row in LIBXC.values()
            if row.required and guest in row.guests and (row.place or 0) > memory
        ]

    def ended(self, *, whole: bool, offset: int) -> None:
        self._record = None
        if not whole and not self.broke_off:
            return
        try:
            rules.emulator_missing(
                self._domain_type, emulator_context=self._emulator_seen, offset=None
            )
        except StreamError as error:
            self.report("emulator-missing", message_of(error))
        if self.libxc is None or self.memory is None:
            return
        if self.libxc.is_pv:
            self._check_vcpus()
        else:
            self._check_special_frames()
        self.memory.finish()

    def _check_vcpus(self) -> None:
        for vcpu_id in sorted(self._vcpus):
            record = self._vcpu_records[vcpu_id]
            if _T.X86_PV_VCPU_BASIC not in self._vcpus[vcpu_id]:
                self.report("vcpu-without-basic", f"vCPU {vcpu_id}", record)
            elif _T.X86_PV_VCPU_EXTENDED not in self._vcpus[vcpu_id] and not self._converted:
                # Old images need not have any (the chunk "extv"), and so their conversions.
                self.report("vcpu-without-extended", f"vCPU {vcpu_id}", record)
        for vcpu_id in self._available():
            if vcpu_id not in self._vcpus:
                self._report_config("vcpu-missing", f"vCPU {vcpu_id}")

    def _available(self) -> list[int]:
        """The vCPUs that the configuration says were online, a few more than there can be."""
        untrusted = None if self.config is None else self.config.json.get("b_info")
        available = untrusted.get("avail_vcpus") if isinstance(untrusted, dict) else None
        if not isinstance(available, list):
            return []
        most = (self._max_vcpus or 0) + 10
        return [vcpu_id for vcpu_id in available[:most] if isinstance(vcpu_id, int)]

    def _check_special_frames(self) -> None:
        assert self.memory is not None
        for index in _FRAME_PARAMS:
            gfn = self._hvm_params_so_far.get(index)
            if gfn and not self.memory.exists(gfn) and not self.memory.frames.untracked:
                message = f"{hvm_param_name(index)}, frame {gfn:#x}"
                self.report("special-frame-missing", message, self._frame_param_records[index])
