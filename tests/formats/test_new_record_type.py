"""A record type more, by a row: each command does what the row says, or refuses it by name.

Never is it taken for another record, and never dropped without a word. docs/adding-a-record.md says
what is added besides so that the commands that refuse it do handle it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from libxlsr.errors import StreamError
from libxlsr.formats import libxc, libxl
from libxlsr.formats.framing import encode_record
from libxlsr.formats.records import LIBXC, LIBXL
from libxlsr.restoring.image.index_target import IndexTarget
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.in_process import InProcessImageTarget
from libxlsr.testing.offline import restore_bytes
from libxlsr.testing.parts import record_part
from libxlsr.tools.convert import compact
from libxlsr.tools.convert.operation import convert
from libxlsr.tools.extract.operation import extract
from libxlsr.tools.extract.request import Request
from libxlsr.tools.inspect.operation import diff, inspect
from libxlsr.tools.verify.operation import verify
from libxlsr.tools.verify.verifier import Verified

from .new_record_types import LARGEST, NEW_FEATURES, NEW_STATE, NewBody, additions

T = libxc.RecordType
XENSTORE = [("physmap/1/size", "2")]
NEW: dict[str, libxl.RecordType | libxc.RecordType] = {"libxl": NEW_STATE, "libxc": NEW_FEATURES}
RIGHT = NewBody(7).encode()

pytestmark = pytest.mark.usefixtures("new_types")


@pytest.fixture
def new_types(monkeypatch: pytest.MonkeyPatch) -> None:
    for mapping, key, value in additions():
        monkeypatch.setitem(mapping, key, value)
    monkeypatch.setattr(IndexTarget, "_worker", f"{__package__}.index_worker")


@pytest.fixture(params=NEW)
def layer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def with_new(layer: str, *bodies: bytes, guest: str = "hvm") -> StreamBuilder:
    """A guest's stream with a new record for each body, where such records belong."""
    stream = StreamBuilder(guest, xenstore=XENSTORE if guest == "hvm" else ())
    place = stream.find(libxl.RecordType.END if layer == "libxl" else T.X86_TSC_INFO)
    for body in bodies or (RIGHT,):
        stream.insert_before(place, record_part(NEW[layer], body))
    return stream


def verified(path: Path, stream: StreamBuilder, *, digest: bool = False) -> Verified:
    path.write_bytes(stream.build())
    return verify(path, digest=digest)


def problems(found: Verified) -> list[tuple[str, str | None]]:
    return [
        (finding.id, finding.record)
        for finding in found.findings
        if finding.severity.value != "note"
    ]


def test_every_type_has_a_row_and_every_row_a_type() -> None:
    assert {*libxl.RecordType, NEW_STATE} == set(LIBXL)
    assert {*libxc.RecordType, NEW_FEATURES} == set(LIBXC)
    assert [row.type for row in LIBXL.values()] == list(LIBXL)
    assert [row.type for row in LIBXC.values()] == list(LIBXC)


# -- verify


def test_verify_takes_a_right_one(layer: str, tmp_path: Path) -> None:
    assert problems(verified(tmp_path / "image", with_new(layer))) == []


@pytest.mark.parametrize("body", [b"", b"7", struct.pack("<I", 100)])
def test_verify_decodes_it(layer: str, body: bytes, tmp_path: Path) -> None:
    (finding,) = problems(verified(tmp_path / "image", with_new(layer, body)))
    assert finding[0] == {"libxl": "new-state", "libxc": "new-features"}[layer]
    assert NEW[layer].name in str(finding[1])


def test_verify_knows_how_large_it_may_be(layer: str, tmp_path: Path) -> None:
    found = verified(tmp_path / "image", with_new(layer, bytes(LARGEST + 1)))
    assert problems(found)[0][0] in ("libxl-record-header", "record-too-large")
    assert NEW[layer].name in str(found.findings[0])


def test_verify_knows_which_guests_have_it(layer: str, tmp_path: Path) -> None:
    found = verified(tmp_path / "image", with_new(layer, guest="pv"))
    assert problems(found)[0][0] in ("emulator-unexpected", "libxc-order")
    assert NEW[layer].name in str(found.findings[0])


def test_verify_knows_where_it_belongs(layer: str, tmp_path: Path) -> None:
    stream = with_new(layer)
    before = libxl.RecordType.EMULATOR_XENSTORE_DATA if layer == "libxl" else T.PAGE_DATA
    part = stream.find(NEW[layer])
    stream.parts.remove(part)
    stream.insert_before(stream.find(before), part)
    found = verified(tmp_path / "image", stream)
    assert problems(found)[0][0] == f"{layer}-order"
    assert NEW[layer].name in str(found.findings[0])


def test_the_digest_has_it(layer: str, tmp_path: Path) -> None:
    digests = [
        verified(tmp_path / "image", stream, digest=True).digest
        for stream in (
            StreamBuilder("hvm", xenstore=XENSTORE),
            with_new(layer),
            with_new(layer, NewBody(8).encode()),
        )
    ]
    assert None not in digests
    assert len(set(digests)) == 3


# -- restore


def refused(layer: str, do: Callable[[], object]) -> StreamError:
    with pytest.raises(StreamError) as caught:
        do()
    error = caught.value
    assert f"does not handle {NEW[layer].name} records" in str(error)
    return error


def test_an_offline_restore_refuses_it_by_name(layer: str, tmp_path: Path) -> None:
    stream = with_new(layer)
    error = refused(
        layer,
        lambda: restore_bytes(stream.build(), tmp_path / "out", make=InProcessImageTarget),
    )
    assert error.offset is not None
    place = stream.offset_of(stream.find(NEW[layer]))
    assert place <= error.offset <= place + libxc.RECORD_HEADER_SIZE


def test_an_offline_restore_decodes_it_first(layer: str, tmp_path: Path) -> None:
    data = with_new(layer, struct.pack("<I", 100)).build()
    with pytest.raises(StreamError, match="the number is 100, expected less than 100"):
        restore_bytes(data, tmp_path / "out", make=InProcessImageTarget)


def test_an_offline_restore_knows_which_guests_have_it(layer: str, tmp_path: Path) -> None:
    data = with_new(layer, guest="pv").build()
    with pytest.raises(StreamError, match=f"no {NEW[layer].name}|{NEW[layer].name} in the image"):
        restore_bytes(data, tmp_path / "out", make=InProcessImageTarget)


# -- inspect


def test_inspect_shows_it_by_name(layer: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(with_new(layer).build())
    description = inspect(path)
    assert description["state"][NEW[layer].name.lower()] == {"bytes": 4}
    assert NEW[layer].name in str(description["records"])


def test_diff_names_it(layer: str, tmp_path: Path) -> None:
    for name, number in (("a", 1), ("b", 2)):
        (tmp_path / name).write_bytes(with_new(layer, NewBody(number).encode()).build())
    assert NEW[layer].name in str(diff(tmp_path / "a", tmp_path / "b"))


# -- what works from an index


@pytest.mark.parametrize("compacting", [False, True])
def test_convert_refuses_it_by_name(layer: str, compacting: bool, tmp_path: Path) -> None:
    stream = with_new(layer)
    path = tmp_path / "image"
    path.write_bytes(stream.build())
    refused(layer, lambda: convert(path, tmp_path / "out", compact=compacting))
    assert sorted(tmp_path.iterdir()) == [path]


def test_extract_refuses_it_by_name(layer: str, tmp_path: Path) -> None:
    stream = with_new(layer)
    path = tmp_path / "image"
    path.write_bytes(stream.build())
    refused(layer, lambda: extract(path, tmp_path / "out", Request("raw")))
    assert sorted(tmp_path.iterdir()) == [path]


def test_the_last_one_of_a_state_is_what_a_compact_image_has(tmp_path: Path) -> None:
    """As soon as the index keeps it; where it stands is in its row."""
    records = [encode_record(NEW_FEATURES, NewBody(number).encode()) for number in (1, 2)]
    path = tmp_path / "records"
    path.write_bytes(b"".join(records))
    with path.open("rb") as file:
        last = compact._last_records(file.fileno())
    assert last == [(NEW_FEATURES, len(records[0]), len(records[1]))]
    assert not compact._before_memory(NEW_FEATURES)


def test_of_a_type_whose_records_add_up_no_compact_image_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIBXC, int(NEW_FEATURES), LIBXC[NEW_FEATURES]._replace(once=None))
    path = tmp_path / "records"
    path.write_bytes(encode_record(NEW_FEATURES, RIGHT))
    with path.open("rb") as file, pytest.raises(StreamError, match="does not handle NEW_FEATURES"):
        compact._last_records(file.fileno())
