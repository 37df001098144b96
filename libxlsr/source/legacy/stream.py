"""Turns an image of Xen 4.5 or older into a libxl stream, as it passes.

formats/legacy.py says what the old format is. What comes out is marked as converted: the libxl
header's LEGACY option, and Xen version 0.1 in the libxc domain header, as Xen's
convert-legacy-stream does (libxl-migration-stream.pandoc, "Header"; libxc-migration-stream.pandoc,
"Domain Header"). Memory is copied batch by batch; nothing else is larger than its own record.

What a reader of the new stream would refuse is refused here as far as one field tells it: the
offset is then one in the old image, which is the one that somebody has.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator

from libxlsr.errors import StreamError
from libxlsr.formats import libxc, libxl
from libxlsr.formats.framing import encode_record
from libxlsr.formats.hvm_context import HvmContext
from libxlsr.formats.hvm_params import (
    HVM_PARAM_BUFIOREQ_PFN,
    HVM_PARAM_IOREQ_PFN,
    HVM_PARAM_STORE_PFN,
    HvmParams,
)
from libxlsr.formats.libxc import PAGE_SIZE, RecordType
from libxlsr.formats.libxc_pv import (
    PT_LEVELS,
    VCPU_GUEST_CONTEXT_SIZE,
    XSAVE_MIN,
    SharedInfo,
    X86PvInfo,
    X86PvP2mFrames,
    X86PvVcpu,
)
from libxlsr.formats.libxc_records import TSC_MODE_NAMES, X86TscInfo
from libxlsr.formats.page_data import PageData
from libxlsr.formats.page_types import PAGE_TYPE_NAMES, has_data
from libxlsr.source.byte_reader import ByteReader
from libxlsr.source.legacy import format as legacy
from libxlsr.source.legacy.format import LegacyKind, chunk_name

_CONVERTER_VERSION = 1

_EXTENDED_INFO_MAX = 1 << 20
_XSAVE_MAX = 1 << 20
_HVM_CONTEXT_MAX = libxc.REC_LENGTH_MAX - 8
_TOOLSTACK_MAX = libxl.XENSTORE_DATA_MAX
_QEMU_MAX = libxl.RECORD_LENGTH_MAX - libxl.EMULATOR_HEADER_SIZE

_TSC_INFO = struct.Struct("<IQII")
_XSAVE_HEADER = struct.Struct("<QQ")
"""Of a vCPU's XSAVE data: a mask, and the size of what follows; "xcnt" counts it in."""


class LegacyStream:
    """One conversion: reads ``source`` from its first byte on, gives the new stream.

    Raises StreamError with offsets in the old image, and whatever ``source`` raises.
    """

    def __init__(self, source: ByteReader, kind: LegacyKind) -> None:
        self._source = source
        self._kind = kind
        self._pieces: list[bytes] = []
        self._write = self._pieces.append
        self._guest_width = 8
        self._frame_limit = legacy.PFN_LIMIT
        self._has_pages = False
        self._has_extended = False
        self._xsave_size = 0
        self._vcpus = [0]
        self._hvm_params: dict[int, int] = {}
        self._xenstore: libxl.EmulatorXenstoreData | None = None

    def pieces(self) -> Iterator[bytes]:
        """The new stream, as it can be told: no more of it at a time than a batch of pages, or a
        record. After the last piece the source's next byte is the one that follows the image."""
        self._head()
        yield from self._taken()
        while self._chunk():
            yield from self._taken()
        self._tail()
        yield from self._taken()
        if not self._kind.is_pv:
            self._emulator_records()
        self._libxl_record(libxl.RecordType.END)
        yield from self._taken()

    def _taken(self) -> list[bytes]:
        pieces = self._pieces[:]
        self._pieces.clear()
        return pieces

    def _head(self) -> None:
        p2m_size = self._word("the p2m size")
        if not 0 < p2m_size < legacy.PFN_LIMIT:
            raise self._wrong(
                f"the p2m size is {p2m_size:#x}", self._kind.width, "a number of frames"
            )
        is_pv = self._kind.is_pv
        guest_type = libxc.DHDR_TYPE_X86_PV if is_pv else libxc.DHDR_TYPE_X86_HVM
        self._write(libxl.Header(options=libxl.RESTORE_OPT_LEGACY).encode())
        self._libxl_record(libxl.RecordType.LIBXC_CONTEXT)
        self._write(libxc.ImageHeader(3).encode())
        self._write(libxc.DomainHeader(guest_type, 0, _CONVERTER_VERSION).encode())
        if is_pv:
            self._extended_info()
            info = X86PvInfo(self._guest_width, PT_LEVELS[self._guest_width])
            self._record(RecordType.X86_PV_INFO, info.encode())
        self._record(RecordType.STATIC_DATA_END)
        if is_pv:
            self._frame_limit = p2m_size
            self._p2m_frames(p2m_size)

    def _tail(self) -> None:
        if not self._has_pages:
            raise self._wrong("the chunks end without any pages", 4, "the guest's memory")
        if self._kind.is_pv:
            self._pv_tail()
        else:
            self._hvm_tail()
        self._record(RecordType.END)

    # -- what comes out

    def _record(self, record_type: RecordType, body: bytes = b"") -> None:
        self._write(encode_record(record_type, body))

    def _libxl_record(self, record_type: libxl.RecordType, body: bytes = b"") -> None:
        self._write(encode_record(record_type, body))

    # -- what goes in

    def _read(self, nbytes: int, what: str) -> bytes:
        return bytes(self._source.read(nbytes, what))

    def _int(self, what: str) -> int:
        """A u32."""
        return int.from_bytes(self._read(4, what), "little")

    def _word(self, what: str) -> int:
        """An unsigned long."""
        return int.from_bytes(self._read(self._kind.width, what), "little")

    def _words(self, number: int, what: str) -> array[int]:
        data = self._read(number * self._kind.width, what)
        return array("Q", struct.unpack(f"<{number}{self._kind.word}", data))

    def _length(self, what: str, most: int) -> int:
        length = self._int(f"the length of {what}")
        if length > most:
            raise self._wrong(f"{what} has a length of {length}", 4, f"at most {most} bytes")
        return length

    def _wrong(
        self, message: str, back: int, expected: str, *, record: str | None = None
    ) -> StreamError:
        """The error for a field that began ``back`` bytes ago."""
        return StreamError(
            message,
            offset=self._source.offset - back,
            record=record or "legacy image",
            expected=expected,
        )

    # -- the head of a PV guest's image

    def _extended_info(self) -> None:
        self._word("the mark of the extended info")  # known by recognise_legacy()
        left = self._length("the extended info", _EXTENDED_INFO_MAX)
        context_size = None
        while left:
            if left < 8:
                raise self._wrong(f"{left} bytes are left of the extended info", 0, "a block")
            block = self._read(4, "a block of the extended info")
            length = self._length("a block of the extended info", left - 8)
            data = self._read(length, "a block of the extended info")
            left -= 8 + length
            if block == b"vcpu":
                context_size = length
            elif block == b"extv":
                self._has_extended = True
            elif block == b"xcnt":
                self._xsave_size = int.from_bytes(data[:4], "little")
        widths = {size: width for width, size in VCPU_GUEST_CONTEXT_SIZE.items()}
        if context_size not in widths:
            raise self._wrong(
                f"the size of a vCPU's context is {context_size}",
                0,
                " or ".join(str(size) for size in widths),
            )
        self._guest_width = widths[context_size]
        xsave = self._xsave_size - _XSAVE_HEADER.size if self._xsave_size else 0
        if xsave != 0 and not XSAVE_MIN <= xsave <= _XSAVE_MAX:
            raise self._wrong(
                f"the size of the XSAVE data is {self._xsave_size}",
                0,
                f"{_XSAVE_HEADER.size}, or {XSAVE_MIN} to {_XSAVE_MAX} more",
            )

    def _p2m_frames(self, p2m_size: int) -> None:
        number = (p2m_size - 1) // (PAGE_SIZE // self._guest_width) + 1
        frames = self._words(number, "the frames of the p2m")
        for index, frame in enumerate(frames):
            if frame >= p2m_size:
                raise self._wrong(
                    f"frame {index} of the p2m is at pfn {frame:#x}",
                    (number - index) * self._kind.width,
                    f"less than the p2m size, {p2m_size:#x}",
                )
        self._record(
            RecordType.X86_PV_P2M_FRAMES,
            X86PvP2mFrames(0, p2m_size - 1, tuple(frames)).encode(),
        )

    # -- chunks

    def _chunk(self) -> bool:
        """Read one; False after the last one."""
        chunk = int.from_bytes(self._read(4, "a chunk's type"), "little", signed=True)
        if chunk > 0:
            self._pages(chunk)
        elif chunk == legacy.XC_SAVE_ID_ENABLE_VERIFY_MODE:
            if not self._has_pages:
                raise self._wrong("it comes before any pages", 4, "pages", record=chunk_name(chunk))
            self._record(RecordType.VERIFY)
        elif chunk == legacy.XC_SAVE_ID_VCPU_INFO:
            self._vcpu_info()
        elif chunk == legacy.XC_SAVE_ID_TSC_INFO:
            data = self._read(_TSC_INFO.size, chunk_name(chunk))
            mode, nsec, khz, incarnation = _TSC_INFO.unpack(data)
            if mode not in TSC_MODE_NAMES:
                raise self._wrong(
                    f"TSC mode is {mode:#x}", len(data), "0 to 3", record=chunk_name(chunk)
                )
            info = X86TscInfo(mode, khz, nsec, incarnation)
            self._record(RecordType.X86_TSC_INFO, info.encode())
        elif chunk == legacy.XC_SAVE_ID_TOOLSTACK:
            self._toolstack()
        elif chunk in legacy.HVM_PARAM_CHUNKS:
            _padding, value = struct.unpack("<IQ", self._read(12, chunk_name(chunk)))
            self._hvm_params[legacy.HVM_PARAM_CHUNKS[chunk]] = value
        elif chunk not in (0, legacy.XC_SAVE_ID_LAST_CHECKPOINT):
            raise self._wrong(
                "a chunk that can't be converted",
                4,
                "pages, vCPU, TSC or toolstack info, or an HVM parameter",
                record=chunk_name(chunk),
            )
        return chunk != 0

    def _pages(self, number: int) -> None:
        if number > legacy.MAX_BATCH_SIZE:
            raise self._wrong(f"a batch of {number} pages", 4, f"at most {legacy.MAX_BATCH_SIZE}")
        words = self._words(number, "a batch of frames")
        for index, word in enumerate(words):
            known = word >> 28 in PAGE_TYPE_NAMES
            if not known or word & legacy.PFN_MASK >= self._frame_limit:
                raise self._wrong_frame(word, (number - index) * self._kind.width)
        frames = [(word & legacy.PFN_MASK, word >> 28) for word in words if word != legacy.FILLER]
        if len({gfn for gfn, _ in frames}) != len(frames):
            raise self._wrong(
                "a frame comes twice in a batch", number * self._kind.width, "each frame once"
            )
        if not frames:
            return
        self._has_pages = True
        data_pages = sum(has_data(page_type) for _, page_type in frames)
        pages = self._read(data_pages * PAGE_SIZE, "a batch of pages")
        batch = PageData.of(frames)
        header = libxc.RecordHeader(RecordType.PAGE_DATA, batch.record_length)
        self._write(header.encode() + batch.encode())
        self._write(pages)

    def _wrong_frame(self, word: int, back: int) -> StreamError:
        if word >> 32:
            return self._wrong(f"frame {word:#x}", back, "28 bits and a type")
        frame = word & legacy.PFN_MASK
        if word >> 28 not in PAGE_TYPE_NAMES:
            return self._wrong(
                f"the type of frame {frame:#x} is {word >> 28:#x}", back, "0 to 4 or 9 to 0xf"
            )
        return self._wrong(
            f"frame {frame:#x} of a PV guest",
            back,
            f"less than the p2m size, {self._frame_limit:#x}",
        )

    def _vcpu_info(self) -> None:
        max_id = self._int("the highest vCPU")
        if max_id >= legacy.XC_SR_MAX_VCPUS:
            raise self._wrong(f"vCPU {max_id}", 4, f"less than {legacy.XC_SR_MAX_VCPUS}")
        bitmap = int.from_bytes(self._read((max_id // 64 + 1) * 8, "the map of vCPUs"), "little")
        self._vcpus = [vcpu for vcpu in range(max_id + 1) if bitmap >> vcpu & 1]
        if self._kind.is_pv and 0 not in self._vcpus:
            raise self._wrong("vCPU 0 is missing", (max_id // 64 + 1) * 8, "bit 0 of the map")

    def _toolstack(self) -> None:
        length = self._length("the toolstack's data", _TOOLSTACK_MAX)
        data = self._read(length, "the toolstack's data")
        if length:
            start = self._source.offset - length
            self._xenstore = legacy.decode_toolstack(data, self._kind.width, start)
            size = len(self._xenstore.encode())
            if size > libxl.XENSTORE_DATA_MAX:
                raise self._wrong(
                    f"the toolstack's data is {size} bytes of xenstore keys",
                    length,
                    f"at most {libxl.XENSTORE_DATA_MAX}",
                )

    # -- tails

    def _pv_tail(self) -> None:
        number = self._length("the list of unmapped frames", legacy.PFN_LIMIT)
        for start in range(0, number, legacy.MAX_BATCH_SIZE):
            # Frames that were ballooned out in the end: they were never sent, or as XTAB.
            count = min(legacy.MAX_BATCH_SIZE, number - start)
            self._read(count * self._kind.width, "the list of unmapped frames")
        for vcpu in self._vcpus:
            size = VCPU_GUEST_CONTEXT_SIZE[self._guest_width]
            self._vcpu(RecordType.X86_PV_VCPU_BASIC, vcpu, size)
            if self._has_extended:
                self._vcpu(RecordType.X86_PV_VCPU_EXTENDED, vcpu, legacy.EXTENDED_SIZE)
            if self._xsave_size:
                _mask, size = _XSAVE_HEADER.unpack(
                    self._read(_XSAVE_HEADER.size, "a vCPU's XSAVE data")
                )
                announced = self._xsave_size - _XSAVE_HEADER.size
                if size != announced:
                    raise self._wrong(
                        f"the size of a vCPU's XSAVE data is {size}",
                        8,
                        f"{announced}, as announced",
                    )
                self._vcpu(RecordType.X86_PV_VCPU_XSAVE, vcpu, size)
        page = self._read(PAGE_SIZE, "the shared info page")
        self._record(RecordType.SHARED_INFO, SharedInfo(page).encode())

    def _vcpu(self, record_type: RecordType, vcpu: int, size: int) -> None:
        data = self._read(size, f"vCPU {vcpu}'s context")
        self._record(record_type, X86PvVcpu(record_type, vcpu, data).encode())

    def _hvm_tail(self) -> None:
        magic = struct.unpack("<3Q", self._read(24, "the magic pages"))
        names = (HVM_PARAM_IOREQ_PFN, HVM_PARAM_BUFIOREQ_PFN, HVM_PARAM_STORE_PFN)
        self._hvm_params.update(zip(names, magic))
        length = self._length("the HVM context", _HVM_CONTEXT_MAX)
        context = self._read(length, "the HVM context")
        HvmContext.decode(context, self._source.offset - length)
        self._record(RecordType.HVM_CONTEXT, context)
        params = HvmParams(tuple(self._hvm_params.items()))
        self._record(RecordType.HVM_PARAMS, params.encode())

    def _emulator_records(self) -> None:
        if self._xenstore is not None and self._xenstore.pairs:
            self._libxl_record(libxl.RecordType.EMULATOR_XENSTORE_DATA, self._xenstore.encode())
        signature = self._read(legacy.QEMU_SIGNATURE_SIZE, "the device model's signature")
        if signature in legacy.QEMU_WITH_LENGTH:
            length = self._length("the device model's state", _QEMU_MAX)
            state = self._read(length, "the device model's state")
        elif signature == legacy.QEMU_TO_EOF:
            state = bytes(self._source.read_to_end(_QEMU_MAX, "the device model's state"))
        else:
            raise self._wrong(
                f"the device model's signature is {signature!r}",
                legacy.QEMU_SIGNATURE_SIZE,
                "DeviceModelRecord0002 or one of its kin",
            )
        context = libxl.EmulatorContext(libxl.EMULATOR_UNKNOWN, 0, state)
        self._libxl_record(libxl.RecordType.EMULATOR_CONTEXT, context.encode())
