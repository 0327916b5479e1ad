"""``peft-daemon complete`` asks for what the file is, whatever its byte order mark."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from peft_cli import complete
from peft_cli.app import application
from peft_core.api_types import CompleteRequest


@pytest.mark.parametrize(
    ("name", "options", "language"),
    [
        ("a.js", (), "javascript"),
        ("a.py", (), "python"),
        ("a.rs", (), "rust"),
        ("a.lua", (), "lua"),
        ("Makefile", (), "makefile"),
        ("Justfile", (), "python"),
        ("a.js", ("--language", "vue"), "vue"),
    ],
)
def test_a_file_is_completed_in_its_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: tuple[str, ...], language: str
) -> None:
    asked: list[CompleteRequest] = []

    async def answer(request: CompleteRequest, *, as_json: bool) -> None:
        asked.append(request)

    monkeypatch.setattr(complete, "_answer", answer)
    monkeypatch.setenv("PEFT_DAEMON_HOME", str(tmp_path / "home"))
    (tmp_path / name).write_text("\ufeffa = 1\n", encoding="utf-8")
    command = ["complete", "--file", str(tmp_path / name), "--line", "1", "--column", "6", *options]
    assert CliRunner().invoke(application(), command).exit_code == 0
    assert [(request.language, request.prefix) for request in asked] == [(language, "a = 1")]
    assert CliRunner().invoke(application(), [each for each in command if each not in ("--column", "6")]).exit_code == 0
    assert asked[1] == asked[0], "without a column it is the end of the line"
