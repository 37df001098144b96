"""What ``--help`` says of every command."""

from __future__ import annotations

import pytest

from libxlsr.cli.main import main


@pytest.mark.parametrize("command", ["restore", "verify", "inspect", "diff", "extract", "convert"])
def test_it_lists_the_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main([command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(f"{code} " in said.partition("exit codes: ")[2] for code in range(5))
