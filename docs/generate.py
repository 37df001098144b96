"""Writes the generated parts of the documentation, or checks that they are up to date.

``python docs/generate.py`` rewrites them, ``--check`` fails and names what has drifted. A generated
part stands between two marks, ``<!-- begin NAME -->`` and ``<!-- end NAME -->``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from libxlsr.stream import machine
from libxlsr.stream.machine import TABLE, State

ROOT = Path(__file__).resolve().parent.parent
FILES = ("README.md", "docs/state-machine.md")


def state_diagram() -> str:
    """The automaton as a Mermaid diagram."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {State.HEADER.name}"]
    lines += [f"    {source.name} --> {dest.name}: {trigger}" for trigger, source, dest in TABLE]
    lines += [f"    {state.name} --> [*]" for state in (State.DONE, State.FAILED)]
    return "\n".join([*lines, "```"])


def state_table() -> str:
    """The automaton as a table: a row a trigger, a column a state."""
    triggers = dict.fromkeys(trigger for trigger, _source, _dest in TABLE)
    moves = {(trigger, source): dest for trigger, source, dest in TABLE}
    rows = ["| trigger | " + " | ".join(state.name for state in State) + " |"]
    rows.append("|---" * (len(State) + 1) + "|")
    for trigger in triggers:
        cells = [
            moves[trigger, state].name if (trigger, state) in moves else "·" for state in State
        ]
        rows.append(f"| `{trigger}` | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def machine_rules() -> str:
    """The rules of the machine, from its docstring."""
    return "```text\n" + (machine.__doc__ or "").strip() + "\n```"


PARTS: dict[str, Callable[[], str]] = {
    "state-diagram": state_diagram,
    "state-table": state_table,
    "machine-rules": machine_rules,
}


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
