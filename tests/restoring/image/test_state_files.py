"""What many records add up to is put together, and written once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from libxlsr.errors import StreamError
from libxlsr.formats.hvm_params import HVM_PARAMS_MAX, HvmParams
from libxlsr.formats.libxc import DHDR_TYPE_X86_HVM, DomainHeader, ImageHeader, RecordType
from libxlsr.libxc import rules
from libxlsr.libxc.guest import ConfiguredGuest, Guest
from libxlsr.libxc.visitor import Record
from libxlsr.restoring.image import state_files
from libxlsr.restoring.image.layout import HVM_PARAMS
from libxlsr.restoring.image.small_files import write_file
from libxlsr.restoring.image.state_files import StateFiles


@pytest.fixture
def guest() -> Guest:
    domain = DomainHeader(DHDR_TYPE_X86_HVM, 4, 17)
    return Guest(ImageHeader(), domain, ConfiguredGuest())


def test_parameters_of_many_records(
    guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def noted(path: Path, data: Any) -> None:
        written.append(path)
        write_file(path, data)

    monkeypatch.setattr(state_files, "write_file", noted)
    state = StateFiles(tmp_path)
    for number in range(100):
        params = HvmParams(((number, 1), (1, number)))
        if number != 1:
            rules.hvm_params(guest, params, 0)
            record = Record("libxc", number + 1, RecordType.HVM_PARAMS, 16, 0)
            state.store(record, params, params.encode())
    state.finish(guest)
    assert written == [tmp_path / HVM_PARAMS]
    values = {one["index"]: one["value"] for one in json.loads(written[0].read_bytes())}
    assert values == {**dict.fromkeys(range(100), 1), 1: 99}


def test_too_many_parameters(guest: Guest) -> None:
    whole = HvmParams(tuple((index, 0) for index in range(HVM_PARAMS_MAX)))
    rules.hvm_params(guest, whole, 0)
    one_more = HvmParams(((HVM_PARAMS_MAX, 0),))
    with pytest.raises(StreamError, match="1025 different HVM parameters, expected at most 1024"):
        rules.hvm_params(guest, one_more, 0)
