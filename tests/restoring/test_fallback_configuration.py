"""A configuration that the caller gives for an image that has none counts as the image's own."""

from __future__ import annotations

import pytest

from libxlsr.errors import StreamError
from libxlsr.events import Ao, Context
from libxlsr.formats import xl
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import RestoreResult
from libxlsr.testing.builder import StreamBuilder, config_json
from libxlsr.testing.fake_target import FakeTarget
from libxlsr.testing.feeding import feed
from libxlsr.testing.parts import IMAGE_HEADER, join
from libxlsr.testing.stepping import run_until


def config(guest: str, name: str = "given") -> xl.Config:
    return xl.Config.from_json(config_json(guest, 4, name=name))


def restore(ctx: Context, target: FakeTarget, data: bytes, given: xl.Config) -> Ao[RestoreResult]:
    with feed("pipe", data) as fd:
        ao = restore_ao(ctx, fd, RestoreOptions(config=given), target=target)
        run_until(ctx, lambda: ao.done)
    return ao


def bare_libxc(guest: str) -> bytes:
    stream = StreamBuilder(guest, pages=4, xl_header=False)
    first = stream.parts.index(stream.find_header(IMAGE_HEADER))
    return join(stream.parts[first:])


@pytest.mark.parametrize("guest", ["pv", "pvh", "hvm"])
def test_the_target_is_told_of_it(ctx: Context, guest: str) -> None:
    target = FakeTarget(ctx)
    given = config(guest)
    data = StreamBuilder(guest, pages=4, xl_header=False).build()
    restore(ctx, target, data, given).result()
    assert target.image is not None
    assert target.image.config is given


def test_the_image_s_own_is_better(ctx: Context) -> None:
    target = FakeTarget(ctx)
    restore(ctx, target, StreamBuilder("hvm", pages=4).build(), config("pvh")).result()
    assert target.image is not None
    assert target.image.config is not None
    assert target.image.config.name == "guest"


@pytest.mark.parametrize(
    ("guest", "given", "said"),
    [
        ("hvm", "pvh", "a pvh guest has no EMULATOR_CONTEXT"),
        ("pvh", "hvm", "ends without an EMULATOR_CONTEXT"),
    ],
)
def test_its_guest_type_says_which_records_there_must_be(
    ctx: Context, guest: str, given: str, said: str
) -> None:
    target = FakeTarget(ctx)
    data = StreamBuilder(guest, pages=4, xl_header=False).build()
    with pytest.raises(StreamError, match=said):
        restore(ctx, target, data, config(given)).result()
    assert target.calls[-1] == "rollback"


def test_a_bare_libxc_stream_has_no_device_model_s_state(ctx: Context) -> None:
    target = FakeTarget(ctx)
    data = bare_libxc("pvh")
    restore(ctx, target, data, config("pvh")).result()
    with pytest.raises(StreamError, match="ends without an EMULATOR_CONTEXT"):
        restore(ctx, FakeTarget(ctx), data, config("hvm")).result()
