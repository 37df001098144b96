"""pytest's plugin in dom0: what happens there, one JSON object a line on fd REPORTS_FD.

``{"started": NODE_ID}``, ``{"report": …}`` as pytest serializes it, ``{"finished": NODE_ID}``.
A report of a failure has the property GUEST_LOST where a guest was lost.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator

import pytest

from .in_dom0.guests import GuestLost, lost_domains

REPORTS_FD = 3
GUEST_LOST = "guest lost"


def pytest_configure(config: pytest.Config) -> None:
    os.set_inheritable(REPORTS_FD, False)
    config.pluginmanager.register(_Lines(config))


class _Lines:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """A lost guest may break more than a wait for it."""
        report = yield
        if report.failed and call.excinfo is not None:
            lost = issubclass(call.excinfo.type, GuestLost) or bool(lost_domains())
            report.user_properties.append((GUEST_LOST, lost))
        return report

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write({"started": nodeid})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._write({"report": data})

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._write({"finished": nodeid})

    def _write(self, message: object) -> None:
        line = json.dumps(message, default=str).encode() + b"\n"
        while line:
            line = line[os.write(REPORTS_FD, line) :]
