"""The description of an image as one HTML page that needs nothing beside it.

The description is in it as JSON, and ``page.js`` draws it. What comes from the image never
becomes markup or script: the JSON holds no ``<``, the script makes text nodes of it, with what
can't be seen escaped, and the page's Content-Security-Policy lets nothing run or load but the
script and the style that were put in here, which it names by their hashes.
"""

from __future__ import annotations

import html
import json
from base64 import b64encode
from hashlib import sha256
from importlib import resources
from typing import Any

from libxlsr.formats.text import printable
from libxlsr.tools.inspect.timeline import timeline

_EXACT = (1 << 53) - 1
"""Whole numbers above it are not exact in JavaScript."""

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
script-src '{script_hash}'; style-src '{style_hash}'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<noscript>This page is drawn by a script that is in it, and scripts are turned off.</noscript>
<main id="page"></main>
<script type="application/json" id="description">{description}</script>
<script>{script}</script>
</body>
</html>
"""


def page(description: dict[str, Any]) -> str:
    """The page for what `describe()` says of an image."""
    style, script = _resource("page.css"), _resource("page.js")
    shown = {**description, "timeline": timeline(description["records"])}
    del shown["records"], shown["record_counts"]
    name = description["image"]["name"]
    return _PAGE.format(
        title=html.escape(f"{printable(name)}: saved guest" if name else "Saved guest"),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        description=_embedded(shown),
    )


def _resource(name: str) -> str:
    return resources.files("libxlsr.tools.inspect").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


def _embedded(value: Any) -> str:
    """JSON in which nothing can end the element that holds it, or begin another."""
    text = json.dumps(_exact(value), separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _exact(value: Any) -> Any:
    """``value``, with numbers that JavaScript would round as strings."""
    if isinstance(value, dict):
        return {key: _exact(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_exact(inner) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _EXACT:
        return str(value)
    return value
