"""libxenguest's restore: it reads a libxc stream from the fd, and fails as the real one does.

Sources: tools/libs/guest/xg_sr_restore.c, xg_sr_restore_x86_hvm.c, xg_sr_restore_x86_pv.c.
Pages are counted and given to the domain, their contents go nowhere.
"""

from __future__ import annotations

import errno
import os
import signal
import struct
from typing import Any

from libxlsr.errors import StreamError, TargetError
from libxlsr.formats import libxc
from libxlsr.formats.hvm_params import HVM_PARAM_CONSOLE_PFN, HVM_PARAM_STORE_PFN, HvmParams
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.page_data import HEADER_SIZE, decode_pfns, prefix_length
from libxlsr.formats.records import decode_libxc_header
from libxlsr.source.exact_reader import ExactReader
from libxlsr.testing.fake_xen.failure import XenFailure
from libxlsr.testing.fake_xen.libxenctrl import NOT_THIS_ONE, FakeXenctrl
from libxlsr.testing.fake_xen.state import HostState

_LEAF_SIZE = 24
PV_RINGS = (5, 6)
"""The frames of a PV guest's rings; a real one has them in its start_info page."""


class Refused(Exception):
    """The stream is wrong: no call has failed, and libxenguest leaves errno alone."""


class FakeXenguest(FakeXenctrl):
    """The functions of libxenguest that `libxlsr.xen.rawlib` lists."""

    HAS_XC_DOMAIN_RESTORE_MEMFLAGS = 0
    XC_STREAM_PLAIN, XC_STREAM_REMUS = 0, 1
    XGR_SDD_MISSING_CPUID, XGR_SDD_MISSING_MSR = 1, 2
    XGR_CHECKPOINT_ERROR, XGR_CHECKPOINT_SUCCESS, XGR_CHECKPOINT_FAILOVER = 0, 1, 2

    def xlsr_reserve_heap(self, _size: int) -> None:
        pass

    def xlsr_domain_restore(
        self,
        xch: Any,
        io_fd: int,
        domid: int,
        store_evtchn: int,
        store_gfn: list[int],
        _store_domid: int,
        console_evtchn: int,
        console_gfn: list[int],
        _console_domid: int,
        stream_type: int,
        handle: Any,
    ) -> int:
        """xc_domain_restore. What it calls back are the bindings' functions."""
        restore = Restore(self, xch, io_fd, domid, handle, checkpointed=bool(stream_type))
        try:
            self.state.called("xc_domain_restore", str(domid))
            restore.run()
            if not restore.is_pv:
                host = self.state.hypervisor
                host.hvm_param_set(domid, self.HVM_PARAM_STORE_EVTCHN, store_evtchn)
                host.hvm_param_set(domid, self.HVM_PARAM_CONSOLE_EVTCHN, console_evtchn)
        except (Refused, XenFailure) as failure:
            number = failure.number if isinstance(failure, XenFailure) else -1
            self._say(xch, number, restore.doing if number >= 0 else str(failure))
            self._say(xch, number, "Restore failed")
            if number >= 0:
                self.ffi.errno = number
            return -1
        store_gfn[0], console_gfn[0] = restore.rings
        return 0

    def _say(self, xch: Any, number: int, text: str) -> None:
        self.xlsr_logger_say(xch.logger, self.XTL_ERROR, number, b"xc", text.encode())

    def xc_cpuid_apply_policy(self, _xch: Any, domid: int, *_how: object) -> int:
        """Of what it is derived from, nothing matters here."""
        host = self.state.hypervisor
        return self.hypercall("xc_cpuid_apply_policy", domid, lambda: host.apply_cpu_policy(domid))

    def xc_set_domain_cpu_policy(
        self,
        _xch: Any,
        domid: int,
        nr_leaves: int,
        leaves: bytes,
        _nr_msrs: int,
        _msrs: bytes,
        err_leaf: list[int],
        err_subleaf: list[int],
        err_msr: list[int],
    ) -> int:
        """Which entry is refused comes in the last three."""
        found = leaf_numbers(bytes(leaves[: nr_leaves * _LEAF_SIZE]))

        def set_policy() -> int:
            refused = self.state.hypervisor.set_cpu_policy(domid, found)
            if refused is None:
                return 0
            err_leaf[0], err_subleaf[0], err_msr[0] = refused, NOT_THIS_ONE, NOT_THIS_ONE
            raise XenFailure(errno.EINVAL)

        return self.hypercall("xc_set_domain_cpu_policy", domid, set_policy)


def leaf_numbers(leaves: bytes) -> list[int]:
    """The numbers of an array of ``xen_cpuid_leaf_t``."""
    return [number for number, *_ in struct.iter_unpack("<6I", leaves)]


class Restore:
    """One run of it."""

    def __init__(
        self,
        lib: FakeXenguest,
        xch: Any,
        io_fd: int,
        domid: int,
        handle: Any,
        *,
        checkpointed: bool,
    ) -> None:
        self._lib = lib
        self._state: HostState = lib.state
        self._xch = xch
        self._reader = ExactReader(io_fd, 0)
        self._domid = domid
        self._handle = handle
        self._checkpointed = checkpointed
        self._populated: set[int] = set()
        self._policies = {RecordType.X86_CPUID_POLICY: False, RecordType.X86_MSR_POLICY: False}
        self._static_data_done = False
        self._fault = lib.state.fault("restore_fault")
        self._buffering = False
        """A checkpoint was taken: what comes now counts with the next one alone."""
        self.is_pv = False
        self.rings = (0, 0)
        self.doing = "Failed to open the stream"
        """What libxenguest says where a call fails."""

    def run(self) -> None:
        """Read to END. Raises Refused or XenFailure."""
        try:
            self._read_headers()
            self._read_records()
        except StreamError as error:
            raise Refused(str(error)) from None
        except TargetError as error:
            self.doing = "Failed to read from the stream"
            raise XenFailure(error.errno or errno.EIO) from None

    def _read_headers(self) -> None:
        image = self._reader.read(libxc.IMAGE_HEADER_SIZE, "the image header")
        libxc.ImageHeader.decode(image, 0)
        header = self._reader.read(libxc.DOMAIN_HEADER_SIZE, "the domain header")
        self.is_pv = libxc.DomainHeader.decode(header, libxc.IMAGE_HEADER_SIZE).is_pv
        if self.is_pv:
            self.rings = PV_RINGS

    def _read_records(self) -> None:
        count = 0
        while True:
            if self._fault is not None and count == self._fault[1]:
                self._go_wrong(self._fault[0])
            count += 1
            try:
                record_type, body = self._read_record()
            except StreamError:
                if self._buffering:  # a failover: the last whole checkpoint is what counts
                    return
                raise
            if record_type == RecordType.END:
                return
            if record_type == RecordType.CHECKPOINT:
                if not self._take_checkpoint():
                    return
            else:
                self._process(record_type, body)

    def _read_record(self) -> tuple[int, bytes]:
        start = self._reader.offset
        raw = self._reader.read(libxc.RECORD_HEADER_SIZE, "a record header")
        header = decode_libxc_header(raw, start)
        body = self._reader.read(header.padded_length, header.name)
        return header.type, body[: header.length]

    def _process(self, record_type: int, body: bytes) -> None:
        host = self._state.hypervisor
        if record_type in self._policies:
            self._policies[RecordType(record_type)] = True
            if record_type == RecordType.X86_CPUID_POLICY:
                self.doing = "Failed to set CPUID policy"
                if host.set_cpu_policy(self._domid, leaf_numbers(bytes(body))) is not None:
                    raise XenFailure(errno.EINVAL)
        elif record_type == RecordType.STATIC_DATA_END:
            self._end_static_data()
        elif record_type == RecordType.PAGE_DATA:
            self._end_static_data()
            self._populate(body)
        elif record_type == RecordType.HVM_PARAMS and not self.is_pv:
            params = dict(HvmParams.decode(body).params)
            for number, value in params.items():
                host.hvm_param_set(self._domid, number, value)
            self.rings = (params.get(HVM_PARAM_STORE_PFN, 0), params.get(HVM_PARAM_CONSOLE_PFN, 0))

    def _end_static_data(self) -> None:
        """Streams of Xen 4.13 and older have no record that says so: their memory does."""
        if self._static_data_done:
            return
        self._static_data_done = True
        missing = sum(
            bit
            for bit, record_type in (
                (self._lib.XGR_SDD_MISSING_CPUID, RecordType.X86_CPUID_POLICY),
                (self._lib.XGR_SDD_MISSING_MSR, RecordType.X86_MSR_POLICY),
            )
            if not self._policies[record_type]
        )
        if self._lib.ffi.externs["xlsr_restore_static_data_done"](missing, self._handle):
            raise Refused("static_data_done() callback failed")

    def _populate(self, body: bytes) -> None:
        prefix = prefix_length(body[:HEADER_SIZE], 0, len(body))
        pages = decode_pfns(body[:prefix], 0, len(body))
        gfns, _types = pages.with_data()
        new = set(gfns) - self._populated
        self.doing = "Failed to populate physmap"
        self._state.hypervisor.populate(self._domid, len(new))
        self._populated |= new
        progress = self._lib.ffi.externs["xlsr_on_progress"]
        logger = self._xch.logger.handle
        progress(logger, b"xc", b"Frames", 0, len(self._populated), 0)

    def _take_checkpoint(self) -> bool:
        """Whether it goes on."""
        if not self._checkpointed:
            raise Refused("Found checkpoint in non-checkpointed stream")
        answer = self._lib.ffi.externs["xlsr_restore_checkpoint"](self._handle)
        if answer == self._lib.XGR_CHECKPOINT_SUCCESS:
            self._buffering = True
            return True
        if answer == self._lib.XGR_CHECKPOINT_FAILOVER and self._buffering:
            return False
        raise Refused("The checkpoint failed")

    def _go_wrong(self, way: str) -> None:
        if way == "hangs":
            while True:
                signal.pause()
        if way == "is-killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if way == "asserts":
            os.write(2, b"xg_sr_restore.c:42: process_record: Assertion `false' failed.\n")
            os.abort()
        self.doing = "Failed to map guest pages"
        raise XenFailure(errno.ENOMEM)
