"""Log lines of Xen's libraries on their way through C to Python."""

from __future__ import annotations

import errno
import logging

import pytest

from libxlsr.xen.backend import load
from libxlsr.xen.toollog import LogLine, ToolLog

LIB = load().lib


def test_a_line_reaches_pythons_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "libxlsr.xen"):
        ToolLog().say(LIB.XTL_ERROR, "it broke", context="xc", errno=errno.EINVAL)
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.ERROR,
        "xc: it broke: Invalid argument",
    )
    assert record.xtl_errno == errno.EINVAL  # type: ignore[attr-defined]


@pytest.mark.parametrize("length", [0, 1, 510, 511, 512, 513, 100_000])
def test_a_line_of_any_length_is_whole(length: int) -> None:
    lines: list[LogLine] = []
    ToolLog(on_line=lines.append).say(LIB.XTL_INFO, "x" * length)
    assert lines == [LogLine(logging.INFO, None, "", "x" * length)]


def test_a_percent_sign_is_no_format() -> None:
    lines: list[LogLine] = []
    ToolLog(on_line=lines.append).say(LIB.XTL_INFO, "%s%n 100%")
    assert lines[0].text == "%s%n 100%"


def test_an_exception_is_kept_until_c_is_left() -> None:
    def broken(line: LogLine) -> None:
        raise KeyError(line.text)

    log = ToolLog(on_line=broken)
    log.say(LIB.XTL_INFO, "first")
    log.say(LIB.XTL_INFO, "second")
    with pytest.raises(KeyError, match="first"):
        log.raise_parked()
    log.raise_parked()


def test_the_last_warnings_are_remembered_once() -> None:
    log = ToolLog(on_line=lambda line: None)
    for level, text in (
        (LIB.XTL_ERROR, "long ago"),
        (LIB.XTL_ERROR, "cause"),
        (LIB.XTL_WARN, "effect"),
        (LIB.XTL_WARN, "effect"),
        (LIB.XTL_DETAIL, "chatter"),
    ):
        log.say(level, text)
    assert log.take_last() == "cause; effect"
    assert log.take_last() is None
