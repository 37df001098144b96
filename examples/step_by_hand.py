"""Drives the stream reader without any fd, one step at a time, and prints each transition.

A unit test does the same: one call, one step, then look at the state, the record, the offset.
"""

from __future__ import annotations

from libxlsr.formats import libxl
from libxlsr.formats.framing import encode_record
from libxlsr.testing.reader_stepper import ReaderStepper

CONTEXT = libxl.EmulatorContext(libxl.EMULATOR_QEMU_UPSTREAM, 0, b"device model").encode()
STREAM = b"".join(
    [
        libxl.Header().encode(),
        encode_record(libxl.RecordType.LIBXC_CONTEXT),
        # libxc's own stream would stand here; the stepper plays its reader.
        encode_record(libxl.RecordType.EMULATOR_CONTEXT, CONTEXT),
        encode_record(libxl.RecordType.END),
    ]
)


def show(name: str, stream: bytes) -> None:
    """Step through one stream to its end, good or bad."""
    print(name)
    stepper = ReaderStepper(stream)
    stepper.start()
    seen = 0
    while stepper.step():
        for trigger, source, dest in stepper.transitions[seen:]:
            print(f"  {stepper.reader.offset:4}  {source.name} --{trigger}--> {dest.name}")
        seen = len(stepper.transitions)
    print(f"  {stepper.error or 'restored'}")


if __name__ == "__main__":
    show("a whole stream", STREAM)
    show("the same without its last byte", STREAM[:-1])
    show("the same with a length that no record has", STREAM[:28] + b"\xff" * 4 + STREAM[32:])
