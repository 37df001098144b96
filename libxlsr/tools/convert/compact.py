"""Writes the image of an index anew: each frame once, each record of state once.

::

    xl header, libxl header, LIBXC_CONTEXT          as they were
    libxc headers, static data, P2M frames          as they were
    PAGE_DATA                                       in ascending order, 1024 frames a record
    vCPUs or HVM context and parameters, TSC, …     what came last of each
    END, emulator records, END                      what came last of each

So iterations of a live migration, a verify pass and checkpoints are gone, and optional records with
them. Pages of zeros are not: the format has no way to say that a page is zero. A frame that is not
sent, or sent as XALLOC ("allocate only", libxc-migration-stream.pandoc), is given whatever Xen's
allocator finds, which Xen does not promise to be zeros. Compression makes them small instead.
"""

from __future__ import annotations

import json
import os
import struct
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

from libxlsr.formats import libxc, libxl, xl
from libxlsr.formats.framing import encode_record
from libxlsr.formats.hvm_params import HvmParams
from libxlsr.formats.libxc import PAGE_SIZE, RecordType
from libxlsr.formats.libxc_pv import VCPU_RECORDS
from libxlsr.formats.page_data import PageData
from libxlsr.formats.page_types import XEN_DOMCTL_PFINFO_NOTAB
from libxlsr.formats.records import LIBXC, decode_libxc_header, unhandled
from libxlsr.restoring.image import index, layout
from libxlsr.tools.convert.packing import Writer, copy
from libxlsr.tools.extract.frames import Frames, kept_its_contents

_BATCH = 1024
"""Frames in a record: MAX_BATCH_SIZE (xg_sr_common.h)."""


def write(
    directory: Path, frames: Frames, writer: Writer, on_frames: Callable[[int], None]
) -> dict[str, int]:
    """Write the image whose index is in ``directory``; what there is to say about it. Raises
    OSError and EOFError. ``on_frames`` is told how many frames were written so far."""
    _write_xl_header(directory, writer)
    in_libxl = _write_libxl_header(directory, writer)
    _write_libxc_headers(directory, writer)
    with open(directory / index.RECORDS, "rb", buffering=0) as file:
        fd = file.fileno()
        records = _last_records(fd)
        for record_type, position, size in records:
            if _before_memory(record_type):
                copy(fd, position, size, writer)
        written = _write_memory(frames, writer, on_frames)
        for record_type, position, size in records:
            if not _before_memory(record_type):
                copy(fd, position, size, writer)
    writer.write(encode_record(RecordType.END))
    if in_libxl:
        _write_emulator_records(directory, writer)
    return {"frames": written, "records": len(records)}


def _write_xl_header(directory: Path, writer: Writer) -> None:
    try:
        config = (directory / layout.CONFIG).read_bytes()
    except FileNotFoundError:
        return
    data = xl.OptionalData(xl.Config.decode(config + b"\0")).encode()
    writer.write(xl.Header(optional_data_len=len(data)).encode() + data)


def _write_libxl_header(directory: Path, writer: Writer) -> bool:
    try:
        header = (directory / index.LIBXL_HEADER).read_bytes()
    except FileNotFoundError:
        return False
    writer.write(header + encode_record(libxl.RecordType.LIBXC_CONTEXT))
    return True


def _write_libxc_headers(directory: Path, writer: Writer) -> None:
    manifest = json.loads((directory / layout.MANIFEST).read_bytes())["libxc"]
    guest_type = libxc.DHDR_TYPE_X86_PV if manifest["kind"] == "pv" else libxc.DHDR_TYPE_X86_HVM
    major, minor = (int(number) for number in manifest["xen_version"].split("."))
    writer.write(
        libxc.ImageHeader(manifest["version"]).encode()
        + libxc.DomainHeader(guest_type, major, minor).encode()
    )


def _last_records(fd: int) -> list[tuple[int, int, int]]:
    """``(type, position, size)`` of the last record of each kind, in their order in the image.

    In another order an HVM_PARAMS record that is kept for one parameter could undo another's last
    value. All X86_PV_P2M_FRAMES stay: their ranges may overlap, but each has to begin where the
    ones before it leave no gap. Real senders write one.
    """
    last: dict[tuple[int, object], tuple[int, int, int]] = {}
    position, end = 0, os.fstat(fd).st_size
    while position < end:
        head = os.pread(fd, libxc.RECORD_HEADER_SIZE + 8, position)
        header = decode_libxc_header(head[: libxc.RECORD_HEADER_SIZE])
        size = libxc.RECORD_HEADER_SIZE + header.padded_length
        part: object = None
        if header.type in VCPU_RECORDS:  # the vCPU's number comes first in the body
            part = head[libxc.RECORD_HEADER_SIZE :]
        elif header.type == RecordType.X86_PV_P2M_FRAMES:
            part = position
        elif header.type == RecordType.HVM_PARAMS:  # convert-legacy-stream writes several
            body = os.pread(fd, header.length, position + libxc.RECORD_HEADER_SIZE)
            part = frozenset(index for index, _ in HvmParams.decode(body).params)
        elif LIBXC[header.type].once is None:  # not said: how one adds to another
            raise unhandled(header.name, "convert --compact", None)
        last.pop((header.type, part), None)
        last[header.type, part] = (header.type, position, size)
        position += size
    return list(last.values())


def _before_memory(record_type: int) -> bool:
    return (LIBXC[record_type].place or 0) < (LIBXC[RecordType.PAGE_DATA].place or 0)


def _write_memory(frames: Frames, writer: Writer, on_frames: Callable[[int], None]) -> int:
    """Write every frame that the image names; how many these are."""
    written = 0
    for entries in _batches(frames):
        words = array("Q", entries)
        batch = PageData(struct.pack(f"<{len(words)}Q", *words))
        length = batch.record_length
        writer.write(libxc.RecordHeader(RecordType.PAGE_DATA, length).encode() + batch.encode())
        for first, number in batch.data_runs():
            for run in frames.runs(first, first + number):
                copy(run.fd, run.position, run.number * PAGE_SIZE, writer)
        written += len(words)
        on_frames(written)
    return written


def _batches(frames: Frames) -> Iterator[list[int]]:
    """The entries of each PAGE_DATA record to be."""
    batch: list[int] = []
    for gfn, types in frames.types():
        for number, byte in enumerate(types, gfn):
            if byte & layout.PAGE_TYPE_SENT:
                page_type = XEN_DOMCTL_PFINFO_NOTAB if kept_its_contents(byte) else byte & 0xF
                batch.append(page_type << 60 | number)
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
    if batch:
        yield batch


def _write_emulator_records(directory: Path, writer: Writer) -> None:
    for record_type, name in index.LIBXL_RECORDS.items():
        try:
            body = (directory / name).read_bytes()
        except FileNotFoundError:
            continue
        writer.write(encode_record(record_type, body))
    writer.write(encode_record(libxl.RecordType.END))
