"""The HTML page of inspect: self-contained, harmless, and right in a real browser."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libxlsr.cli.main import main
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.page_data import PageData
from libxlsr.testing.builder import StreamBuilder, config_json
from libxlsr.testing.parts import record_part
from libxlsr.tools.inspect.memory_map import CELLS_MAX
from libxlsr.tools.inspect.timeline import STRETCHES_MAX, timeline
from tests.paths import EXAMPLE

from .browser import CHROMIUM, Browser

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202e&amp;"


def hostile_config() -> dict[str, Any]:
    config = config_json("pv", 16, name=HOSTILE.replace("/", "").replace("\u202e", ""))
    config["b_info"][HOSTILE] = [HOSTILE, {"__proto__": HOSTILE}]
    config["b_info"]["large"] = 2**64 - 1
    config["__proto__"] = {"polluted": HOSTILE}
    return config


IMAGES: dict[str, dict[str, Any]] = {
    "pv": {
        "guest": "pv",
        "pages": 20_000,
        "types": {**dict.fromkeys(range(100, 300), 1), 400: 0xC, 500: 0xD, 501: 0xE}
        | dict.fromkeys(range(1000, 5000), 0xF),
        "dirtied": [range(0, 900, 3), range(0, 90, 2), [7]],
        "vcpus": 2,
    },
    "remus": {"pages": 300, "checkpoints": [[1, 2, 3], [4], []]},
    "hostile": {"guest": "pv", "config": hostile_config()},
}


def describe(image: Path, directory: Path) -> tuple[dict[str, Any], Path]:
    """What --json says of an image, and where --html put its page."""
    page = directory / "page.html"
    if page.exists():
        page.unlink()
    with (directory / "json").open("w+") as out, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", out)
        main(["inspect", "--json", "--html", str(page), str(image)])
        out.seek(0)
        description: dict[str, Any] = json.load(out)
    return description, page


def made(name: str, directory: Path) -> Path:
    path = directory / "image"
    path.write_bytes(StreamBuilder(**IMAGES[name]).build())
    return path


# -- without a browser


def test_a_file_for_its_owner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main(["inspect", "--html", str(page), str(EXAMPLE)]) == 0
    assert "described in" in capsys.readouterr().out
    assert page.stat().st_mode & 0o777 == 0o600
    assert main(["inspect", "--html", str(page), str(EXAMPLE)]) == 3
    assert "exists" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["page.html"]


def test_what_is_no_image_leaves_no_page(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"no image at all")
    assert main(["inspect", "--html", str(tmp_path / "page"), str(tmp_path / "image")]) == 1
    assert os.listdir(tmp_path) == ["image"]


def test_nothing_in_it_comes_from_elsewhere_or_out_of_the_image(tmp_path: Path) -> None:
    _, page = describe(made("hostile", tmp_path), tmp_path)
    text = page.read_text()
    assert not re.search(r"<\w+[^>]*\s(?:src|href)\s*=|@import|url\(", text)
    assert re.findall(r"https?://[^\"]+", text) == ["http://www.w3.org/2000/svg"]
    tags = Counter(re.findall(r"<(\w+)", text))
    assert (tags["script"], tags["img"]) == (2, 0)
    assert "\u202e" not in text


def test_the_map_of_any_size() -> None:
    """Cells add up to what --json counts, however far apart frames are."""
    for step in (1, 7, 1 << 9, 1 << 20):
        stream = StreamBuilder("pvh")
        batch = PageData.of((gfn * step, 0xF) for gfn in range(16, 1000))
        first = stream.find(RecordType.PAGE_DATA)
        stream.insert_after(first, record_part(RecordType.PAGE_DATA, batch.encode()))
        memory = described_memory(stream)
        cells: Counter[str] = Counter()
        end = 0
        for start, number, content in memory["map"]["runs"]:
            assert start >= end
            end = start + number
            for name, frames in content.items():
                cells[name] += number * frames
        assert dict(cells) == memory["frames"]
        assert end == memory["map"]["cells"] <= CELLS_MAX
        assert memory["map"]["end"] == 999 * step + 1


def described_memory(stream: StreamBuilder) -> dict[str, Any]:
    from libxlsr.tools.inspect.operation import inspect

    fd = os.memfd_create("image")
    try:
        stream.write_to(fd)
        os.lseek(fd, 0, os.SEEK_SET)
        memory: dict[str, Any] = inspect(fd)["memory"]
        return memory
    finally:
        os.close(fd)


def test_a_timeline_of_very_many_records() -> None:
    records = [
        {"layer": "libxc", "type": n % 2, "name": "", "number": n, "offset": 8 * n, "length": 0}
        for n in range(3 * STRETCHES_MAX)
    ]
    line = timeline(records)
    assert len(line["stretches"]) == STRETCHES_MAX
    assert line["left_out"] == 2 * STRETCHES_MAX


# -- in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with Browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.mark.parametrize("name", ["example", *IMAGES, "damaged"])
def test_it_shows_what_json_says(browser: Browser, name: str, tmp_path: Path) -> None:
    kind = "pv" if name == "damaged" else name
    image = EXAMPLE if name == "example" else made(kind, tmp_path)
    if name == "damaged":
        os.truncate(image, image.stat().st_size - 30_000_000)
    description, page = describe(image, tmp_path)
    browser.open(page)
    assert browser.complaints == []
    assert browser.evaluate("document.documentElement.dataset.drawn") == "yes"
    memory = description["memory"]
    drawn = browser.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#legend li')]"
        ".map(item => [item.dataset.type, Number(item.dataset.frames)]))"
    )
    missing = drawn.pop("never named", 0)
    assert drawn == memory["frames"]
    assert missing == memory["map"]["end"] - sum(memory["frames"].values())
    assert bool(missing) is (name == "damaged")
    bars = browser.evaluate(
        "[...document.querySelectorAll('#bars g')]"
        ".map(bar => [Number(bar.dataset.frames), Number(bar.dataset.pages)])"
    )
    assert bars == [[one["frames"], one["pages"]] for one in memory["rounds"]]
    stretches = browser.evaluate(
        "[...document.querySelectorAll('#timeline [data-record]')].map(one => one.dataset.record)"
    )
    assert stretches == [
        f"{one['layer']} {one['name']}" for one in timeline(description["records"])["stretches"]
    ]
    verdict = browser.evaluate("document.getElementById('verdict').textContent")
    assert verdict == ("good" if description["image"]["good"] else "bad")
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_maps_colours_lie_where_the_frames_are(browser: Browser, tmp_path: Path) -> None:
    description, page = describe(made("pv", tmp_path), tmp_path)
    browser.open(page)
    cell = description["memory"]["map"]["frames_per_cell"]
    colours = browser.evaluate(
        "(() => { const canvas = document.querySelector('canvas');"
        "const context = canvas.getContext('2d'), side = canvas.width / 128;"
        f"return [0, 100, 1000, 4996, 19999].map(gfn => Math.floor(gfn / {cell}))"
        ".map(cell => [...context.getImageData((cell % 128) * side + 1,"
        "Math.floor(cell / 128) * side + 1, 1, 1).data].slice(0, 3)); })()"
    )
    ordinary, table, none = [42, 157, 143], [76, 120, 200], [184, 191, 198]
    assert colours == [ordinary, table, none, none, ordinary]


def test_hostile_text_stays_text(browser: Browser, tmp_path: Path) -> None:
    description, page = describe(made("hostile", tmp_path), tmp_path)
    browser.open(page)
    assert browser.complaints == []
    assert browser.evaluate("document.querySelectorAll('img, main script').length") == 0
    assert browser.evaluate("({}).polluted === undefined")
    assert (
        browser.evaluate("document.querySelector('h1').textContent")
        == (description["image"]["name"])
    )
    shown = browser.evaluate("document.querySelector('main').textContent")
    assert HOSTILE.replace("\u202e", "\\u{202e}") in shown
    assert "\u202e" not in shown
    assert str(2**64 - 1) in shown
