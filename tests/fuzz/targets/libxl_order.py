"""Invariant: libxl's order checker takes exactly the sequences that begin a sentence of the grammar
in its first lines, and END exactly where the sentence may end. A byte is a record."""

from __future__ import annotations

import re
from collections.abc import Mapping

from libxlsr.errors import StreamError
from libxlsr.formats.libxl import RecordType
from libxlsr.formats.libxl_order import RecordOrder

from ..invariants import check_message

LETTERS = {
    "L": RecordType.LIBXC_CONTEXT,
    "X": RecordType.EMULATOR_XENSTORE_DATA,
    "E": RecordType.EMULATOR_CONTEXT,
    "K": RecordType.CHECKPOINT_END,
    "Z": RecordType.END,
    "S": RecordType.CHECKPOINT_STATE,
    "c": None,  # libxc lends the fd out for a checkpoint
}
BEGINNING = re.compile("(L(cX?E?K)*(X?E?Z?|c(X?E?))?)?")
WHOLE = re.compile("L(cX?E?K)*X?E?Z")


def check(data: bytes) -> None:
    order = RecordOrder()
    taken = ""
    for byte in data:
        letter = list(LETTERS)[byte % len(LETTERS)]
        record_type = LETTERS[letter]
        if record_type is None:
            if taken[-1:] not in ("L", "K"):  # only a running libxc does that
                continue
            order.start_checkpoint()
        else:
            try:
                order.check(record_type, 0)
            except StreamError as error:
                check_message(error)
                assert not BEGINNING.fullmatch(taken + letter), taken + letter
                continue  # a record that was refused leaves no trace
        taken += letter
        assert BEGINNING.fullmatch(taken), taken
    if taken.endswith("Z"):
        assert WHOLE.fullmatch(taken), taken


def seeds() -> Mapping[str, bytes]:
    sentences = {"plain": "LXEZ", "checkpoints": "LcXEKcEKcXKEZ", "bare": "LZ", "wrong": "LXXEKcZS"}
    letters = "".join(LETTERS)
    return {
        name: bytes(letters.index(letter) for letter in text) for name, text in sentences.items()
    }
