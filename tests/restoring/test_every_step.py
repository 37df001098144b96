"""A restore into a Xen domain with each of its steps failing, and with an abort at each.

The host is a fake one without processes, so that all of it takes seconds. Whatever happens: one
completion, the error that came first, and nothing left in the host or in the event loop.
"""

from __future__ import annotations

import errno
import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import pytest

from libxlsr.errors import Aborted, LibxlsrError
from libxlsr.events import Ao, Context
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import RestoreResult
from libxlsr.restoring.xen_target import XenTarget
from libxlsr.testing.builder import StreamBuilder, config_json
from libxlsr.testing.clock import FakeClock
from libxlsr.testing.fake_xen import FakeXenHost
from libxlsr.testing.stepping import run_until_idle, step

PAGES = 8
A_DISK = {"pdev_path": __file__, "format": "raw", "readwrite": 0}
DEVICES = {
    "disks": [
        {**A_DISK, "vdev": "xvda", "backend": "phy", "readwrite": 1},
        {**A_DISK, "vdev": "hdc", "backend": "qdisk", "removable": 1, "is_cdrom": 1},
    ],
    "nics": [{"devid": 0, "mac": "00:16:3e:00:00:01", "bridge": "xenbr0"}],
}
SECRET = {"vnc": {"enable": "True", "passwd": "a secret"}}


def image(guest: str, **members: Any) -> bytes:
    config = config_json(guest, PAGES)
    for name, value in members.items():
        (config["b_info"] if name.startswith("type.") else config)[name] = value
    keys = [("physmap/a0000/size", "20000")] if guest == "hvm" else []
    return StreamBuilder(guest, pages=PAGES, config=config, xenstore=keys).build()


IMAGES = {
    "hvm": image("hvm", **{"type.hvm": SECRET}, **DEVICES),
    "pvh": image("pvh"),
    "pv": image("pv", vfbs=[{"devid": 0}], vkbs=[{"devid": 0}]),
}


class Run:
    """One restore, on a clock that stands still unless nothing else happens."""

    def __init__(self, xen: FakeXenHost, fd: int) -> None:
        self.xen = xen
        self.clock = FakeClock()
        self.ctx = Context(clock=self.clock)
        self.completions: list[Ao[RestoreResult]] = []
        self.ao = restore_ao(
            self.ctx,
            fd,
            RestoreOptions(to_eof=True),
            target=XenTarget(self.ctx, host=xen),
            on_done=self.completions.append,
        )

    def finish(self) -> None:
        for _ in range(2000):
            run_until_idle(self.ctx)
            if self.completions:
                break
            self.clock.advance(0.5)
        run_until_idle(self.ctx)
        assert self.completions == [self.ao]
        assert self.ctx.registered() == []

    def error(self) -> LibxlsrError | None:
        """What came of it. Without success nothing is left."""
        try:
            self.ao.result()
        except LibxlsrError as failure:
            error = failure
        else:
            assert [domain.running for domain in self.xen.domains] == [True]
            return None
        assert self.xen.left_behind() == []
        assert error.later == []
        return error


class Restores:
    """Restores of one image, one after the other, each on a host that has just been booted."""

    def __init__(self, xen: FakeXenHost, image: IO[bytes]) -> None:
        self._xen = xen
        self._image = image

    def next(self) -> Run:
        """Another one."""
        self._xen.reboot()
        self._image.seek(0)
        return Run(self._xen, self._image.fileno())


@contextmanager
def restores(kind: str) -> Iterator[Restores]:
    with FakeXenHost(processes=False) as xen, tempfile.TemporaryFile() as file:
        file.write(IMAGES[kind])
        file.flush()
        yield Restores(xen, file)


def calls_of(kind: str) -> list[str]:
    """The names of the calls that a whole restore makes."""
    with restores(kind) as many:
        run = many.next()
        run.finish()
        assert run.error() is None
        return [call.name for call in run.xen.calls]


CALLS = {kind: calls_of(kind) for kind in IMAGES}

PASSES = {
    "xs_unwatch": "the watch goes with the connection",
    "xc_domain_getinfo": "of progress: the next look will tell",
}
"""Calls whose failure is no failure of the restore."""


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in CALLS for name in sorted(set(CALLS[kind]))]
)
def test_each_call_fails(kind: str, name: str) -> None:
    numbers = [number for number, called in enumerate(CALLS[kind]) if called == name]
    if kind != "hvm":  # the guest with everything; what others do in the same way is left out
        numbers = sorted({*numbers[:2], *numbers[-2:]})
    with restores(kind) as many:
        for number in numbers:
            run = many.next()
            run.xen.state.failing[number] = errno.EIO
            run.finish()
            assert run.xen.calls[number].name == name
            error = run.error()
            if name in PASSES:
                assert error is None
            elif name == "xs_check_watch":  # no watch fires any more
                assert error is None or "no tty within" in str(error)
            elif name.startswith("libxl_"):  # of libxenlight's calls there is no errno
                assert name in str(error)
            else:
                assert "Input/output error" in str(error)


@pytest.mark.parametrize("kind", IMAGES)
def test_an_abort_at_each_step(kind: str) -> None:
    with restores(kind) as many:
        for steps in itertools.count():
            run = many.next()
            for _ in range(steps):
                assert step(run.ctx)
            reason = Aborted("enough")
            run.ao.abort(reason)
            run.finish()
            if run.error() is None:  # it was too late: the guest runs
                break
            assert run.error() is reason
    assert steps > 10
