"""Writes the generated parts of the documentation, or checks that they are up to date.

``python docs/generate.py`` rewrites them, ``--check`` fails and names what has drifted. A generated
part stands between two marks, ``<!-- begin NAME -->`` and ``<!-- end NAME -->``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from libxlsr.stream import machine, reader_machine

ROOT = Path(__file__).resolve().parent.parent
FILES = ("README.md", "docs/state-machine.md")

AUTOMATA = {"reader": reader_machine}
"""Each automaton's module: its docstring says what the states and triggers of its TABLE mean."""


def diagram(table: machine.Table[Any]) -> str:
    """An automaton as a Mermaid diagram."""
    live = {source for _trigger, source, _dest in table}
    ends = dict.fromkeys(dest for _trigger, _source, dest in table if dest not in live)
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {table[0][1].name}"]
    lines += [f"    {source.name} --> {dest.name}: {trigger}" for trigger, source, dest in table]
    lines += [f"    {state.name} --> [*]" for state in ends]
    return "\n".join([*lines, "```"])


def rows(table: machine.Table[Any]) -> str:
    """An automaton as a table: a row a trigger, a column a state."""
    states = type(table[0][1])
    triggers = dict.fromkeys(trigger for trigger, _source, _dest in table)
    moves = {(trigger, source): dest for trigger, source, dest in table}
    lines = ["| trigger | " + " | ".join(state.name for state in states) + " |"]
    lines.append("|---" * (len(states) + 1) + "|")
    for trigger in triggers:
        cells = [
            moves[trigger, state].name if (trigger, state) in moves else "·" for state in states
        ]
        lines.append(f"| `{trigger}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def prose(module: ModuleType) -> str:
    """A module's docstring."""
    return "```text\n" + (module.__doc__ or "").strip() + "\n```"


PARTS: dict[str, Callable[[], str]] = {"machine-rules": lambda: prose(machine)}
for _name, _module in AUTOMATA.items():
    PARTS[f"{_name}-diagram"] = partial(diagram, _module.TABLE)
    PARTS[f"{_name}-table"] = partial(rows, _module.TABLE)
    PARTS[f"{_name}-rules"] = partial(prose, _module)


def generated(text: str) -> str:
    """The text with its generated parts as they should be."""
    for name, make in PARTS.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        part = f"{begin}\n{make()}\n{end}".replace("\\", r"\\")
        text = pattern.sub(part, text)
    return text


def drifted() -> Iterator[tuple[Path, str]]:
    """Each file whose generated parts are not up to date, and what it should be."""
    for name in FILES:
        path = ROOT / name
        text = path.read_text()
        wanted = generated(text)
        if wanted != text:
            yield path, wanted


def main() -> int:
    """Rewrite or check; the exit code."""
    check = "--check" in sys.argv[1:]
    found = list(drifted())
    for path, wanted in found:
        if check:
            print(f"{path.relative_to(ROOT)} has drifted: run python docs/generate.py")
        else:
            path.write_text(wanted)
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main())
