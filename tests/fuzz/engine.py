"""One target under atheris: ``python -m tests.fuzz.engine TARGET [libFuzzer's options]``."""

from __future__ import annotations

import logging
import sys

import atheris

with atheris.instrument_imports(include=["libxlsr"]):
    # What is imported here is instrumented; the targets import the rest of it below.
    pass

from . import corpus


def main() -> None:
    """Fuzz until libxlsr breaks the target's invariant or libFuzzer's limits are reached."""
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["libxlsr"]):
        target = corpus.load(name)
    logging.disable()
    atheris.Setup([sys.argv[0], *options], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
