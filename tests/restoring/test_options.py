"""One object says how a restore is to be done; wrong ones are refused before anything starts."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

import libxlsr
from libxlsr import aio
from libxlsr.errors import TargetError, UsageError
from libxlsr.events import Context
from libxlsr.restoring import choose as choosing
from libxlsr.restoring.blocking import with_place
from libxlsr.restoring.choose import choose, make_target
from libxlsr.restoring.image.target import ImageTarget
from libxlsr.restoring.options import RestoreOptions, TargetName
from libxlsr.restoring.xen_target import XenTarget

PUBLIC: list[Any] = [
    value
    for module in (libxlsr, aio)
    for value in (getattr(module, name) for name in module.__all__)
    if inspect.isfunction(value) or inspect.isclass(value)
]


@pytest.mark.skipif(sys.version_info < (3, 10), reason="X | Y is not evaluated before 3.10")
@pytest.mark.parametrize("value", PUBLIC, ids=lambda value: value.__name__)
def test_the_type_hints_of_what_is_public_resolve(value: Any) -> None:
    typing.get_type_hints(value)
    for name, member in inspect.getmembers(value, inspect.isfunction):
        made_by_the_caller = name == "__init__" and value is not aio.Operation
        if made_by_the_caller or not name.startswith("_"):
            typing.get_type_hints(member)


def test_the_targets_are_a_literal() -> None:
    assert typing.get_args(TargetName) == ("auto", "image", "xen")


def test_the_target_that_the_options_name(ctx: Context, tmp_path: Path) -> None:
    image = make_target(ctx, RestoreOptions("image", tmp_path / "guest"))
    assert isinstance(image, ImageTarget)
    assert isinstance(make_target(ctx, RestoreOptions("xen")), XenTarget)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (RestoreOptions("image"), "needs an output directory"),
        (RestoreOptions("xen", "guest"), "for offline restores"),
        (RestoreOptions("nowhere"), "no target 'nowhere'"),  # type: ignore[arg-type]
    ],
)
def test_options_that_do_not_fit(ctx: Context, options: RestoreOptions, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        libxlsr.restore_ao(ctx, "/no/such/file", options)
    assert ctx.registered() == []


def test_a_path_that_can_not_be_opened(ctx: Context, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="can't open"):
        libxlsr.restore_ao(ctx, tmp_path / "none", RestoreOptions("image", tmp_path / "guest"))
    assert ctx.registered() == []


def test_a_host_is_looked_at_for_auto_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "CAPABILITIES", tmp_path / "capabilities")
    assert choose("auto").target == "image"
    (tmp_path / "capabilities").write_text("")
    assert choose("auto").target == "image"
    (tmp_path / "capabilities").write_text("control_d\n")
    assert choose("auto").target == "xen"
    assert choose("image").target == "image"


def test_a_place_that_is_given_takes_the_place_of_the_options_own() -> None:
    options = RestoreOptions("xen", paused=True)
    assert with_place(options, None, None) == options
    assert with_place(options, "image", "guest") == dataclasses.replace(
        options, target="image", output="guest"
    )
    assert with_place(None, "image", None) == RestoreOptions("image")
