"""The files that are shared with libxl: userdata, the history of domain ids, locks."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
import uuid
from pathlib import Path

import pytest

from libxlsr.domain.libxl_files import domid_history, userdata
from libxlsr.domain.libxl_files.locks import lock_file

HANDLE = uuid.UUID("13b086ae-4a23-480c-a9b5-26f262d4c7be")
STORED = f"userdata-d.7.{HANDLE}.libxl-json"


def test_the_configuration_is_stored_where_libxl_looks(tmp_path: Path) -> None:
    userdata.store_config(7, HANDLE, b"{}\n\0", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [STORED]
    assert (tmp_path / STORED).read_bytes() == b"{}\n\0"
    assert stat.S_IMODE((tmp_path / STORED).stat().st_mode) == 0o600


def test_what_can_not_be_stored_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / STORED).mkdir()
    (tmp_path / STORED / "in the way").touch()
    with pytest.raises(OSError, match=r"libxl-json"):
        userdata.store_config(7, HANDLE, b"{}", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [STORED]


def test_only_the_domains_own_files_are_removed(tmp_path: Path) -> None:
    others = {f"userdata-d.77.{HANDLE}.libxl-json", f"userdata-d.7.{uuid.uuid4()}.libxl-json"}
    for name in (STORED, f"userdata-d.7.{HANDLE}.xl", *others):
        (tmp_path / name).touch()
    userdata.remove_all(7, HANDLE, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == others


def test_an_id_is_recent_for_a_minute(tmp_path: Path) -> None:
    assert not domid_history.is_recent(7, tmp_path)
    domid_history.mark_recent(7, tmp_path)
    domid_history.mark_recent(8, tmp_path)
    assert domid_history.is_recent(7, tmp_path)
    assert not domid_history.is_recent(9, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["domid-history"]


def test_old_lines_and_nonsense_are_dropped(tmp_path: Path) -> None:
    now = int(time.monotonic())
    history = tmp_path / "domid-history"
    history.write_text(f"{now - 61} 5\nnonsense\n{now} 6\n1 2 3\n")
    assert not domid_history.is_recent(5, tmp_path)
    domid_history.mark_recent(7, tmp_path)
    assert [line.split()[1] for line in history.read_text().splitlines()] == ["6", "7"]


def test_a_history_that_can_not_be_replaced_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domid_history.mark_recent(7, tmp_path)

    def no_space(path: Path, _target: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(OSError, match="domid-history"):
        domid_history.mark_recent(8, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["domid-history"]
    assert not domid_history.is_recent(8, tmp_path)


def test_the_time_can_be_set_as_for_libxl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBXL_DOMID_REUSE_TIMEOUT", "-1")
    domid_history.mark_recent(7, tmp_path)
    assert not domid_history.is_recent(7, tmp_path)


def test_a_lock_is_held_and_its_file_goes(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock_file(path):
        fd = os.open(path, os.O_RDWR)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(fd)
    assert not path.exists()


def test_a_lock_whose_file_was_replaced_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    real = fcntl.flock
    replaced: list[int] = []

    def flock(fd: int, operation: int) -> None:
        real(fd, operation)
        if not replaced:  # the one before removed it between our open and our lock
            replaced.append(fd)
            path.unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock_file(path):
        assert path.exists()
    assert replaced
