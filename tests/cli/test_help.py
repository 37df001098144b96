"""What ``--help`` says of every command."""

from __future__ import annotations

import pytest

from libxlsr.cli.main import main


@pytest.mark.parametrize("columns", ["\N{SUPERSCRIPT TWO}", "9" * 5000, "-1", "0", "1", "wide"])
def test_an_odd_width_of_the_terminal(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["verify", "--help"])
    assert "exit codes:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["\x1b[31m"], ["verify", "--x\x1b[31m", "x"], ["restore", "x", "--deadline", "\x1b[31m"]],
    ids=["program", "command", "value"],
)
def test_no_escape_gets_to_the_terminal(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(arguments)
    said = capsys.readouterr().err
    assert r"\x1b[31m" in said
    assert "\x1b" not in said


@pytest.mark.parametrize("command", ["restore", "verify", "inspect", "diff", "extract", "convert"])
def test_it_lists_the_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main([command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(f"{code} " in said.partition("exit codes: ")[2] for code in range(5))
