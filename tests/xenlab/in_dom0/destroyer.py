"""A program that destroys domains as ``xl destroy`` does: their ids come on its standard input."""

from __future__ import annotations

import sys

from libxlsr.errors import LibxlsrError
from libxlsr.xen.toollog import LogLine, ToolLog
from libxlsr.xen.xenlight import Xenlight


def _ignore(_line: LogLine) -> None:
    pass


def main() -> None:
    """Answer each id with a line: "destroyed", or what went wrong."""
    with Xenlight(ToolLog(on_line=_ignore)) as xenlight:
        for line in sys.stdin:
            try:
                xenlight.destroy_domain(int(line))
            except LibxlsrError as error:
                print(str(error).replace("\n", " "), flush=True)
            else:
                print("destroyed", flush=True)


if __name__ == "__main__":
    main()
