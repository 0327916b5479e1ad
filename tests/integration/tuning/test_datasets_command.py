"""``peft-daemon datasets``: what it prints for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from peft_cli.datasets import app
from peft_core.errors import NotFound
from support.shared_data import shared_data


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEFT_DAEMON_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("PEFT_DAEMON_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def call_json(*arguments: object) -> Any:
    return json.loads(call(*arguments, "--json"))


def test_list_shows_sizes_licences_and_where_the_files_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not here" in call("list")
    monkeypatch.setenv("PEFT_DAEMON_DATA", str(shared_data()))
    rows = {row["id"]: row for row in call_json("list")}
    assert set(rows) == {"conala", "codealpacapy", "apps", "joint"}
    assert rows["conala"]["sizes"] == {"train": 2135, "validation": 201, "test": 543}
    assert rows["conala"]["found"] == "PEFT_DAEMON_DATA"
    assert len(rows["joint"]["files"]) == 4
    assert rows["apps"]["found"] is None
    assert "CC-BY-NC" in rows["codealpacapy"]["licence"]
    assert "CC-BY-NC" in call("list")


def test_list_of_one_folder_finds_what_it_has() -> None:
    rows = {row["id"]: row["found"] for row in call_json("list", "--data", shared_data("apps_subset", "train_5"))}
    assert rows == {"conala": None, "codealpacapy": None, "apps": "--data", "joint": None}


def test_show_prints_counts_reasons_licence_digest_and_examples() -> None:
    folder = shared_data("codealpaca")
    shown = call_json("show", "codealpacapy", "--data", folder, "--examples", 2, "--split", "test")
    assert shown["sizes"] == {"train": 2192, "validation": 314, "test": 628}
    assert shown["dropped"]["empty"] == 1
    assert len(shown["digest"]) == 64
    assert [set(example) for example in shown["examples"]] == [{"id", "intent", "code", "language", "weight"}] * 2


def test_show_says_it_all_to_people_too(home: Path) -> None:
    rows = [{"instruction": f"Add {n}.", "input": "now" if n % 4 else "", "output": "x += 1"} for n in range(40)]
    (home / "few.json").write_text(json.dumps(rows))
    text = call("show", "codealpacapy", "--data", home / "few.json")
    for expected in ("7 / 1 / 2", "CC-BY-NC", "30 has an input", "intent:", "few.json", "digest: "):
        assert expected in text


def test_show_takes_a_file_of_the_users_own(home: Path) -> None:
    rows = [{"prefix": f"a{n}", "middle": "\n".join("x" * 20), "suffix": ""} for n in range(10)]
    (home / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = call_json("show", "mine.jsonl", "--split", "validation")
    assert shown["sizes"] == {"train": 8, "validation": 1, "test": 1}
    assert shown["examples"][0]["kind"] == "line"
    assert "8 more lines" in call("show", "mine.jsonl")


def test_data_cannot_steer_the_terminal(home: Path) -> None:
    (home / "mine.jsonl").write_text(json.dumps({"intent": "a\x1b]0;owned\x07b", "code": "\x9b2J\tü"}))
    text = call("show", "mine.jsonl")
    assert "\tü" in text
    assert not {"\x1b", "\x07", "\x9b"} & set(text)


def test_what_is_not_here_is_an_error_with_a_next_step(home: Path) -> None:
    with pytest.raises(NotFound) as caught:
        call("show", "apps")
    assert str(home / "home/cache/datasets/apps") in caught.value.fix
    assert "train.jsonl" in caught.value.fix


@pytest.mark.parametrize("verb", ["list", "show"])
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    text = call(verb, "--help")
    assert f"Example: peft-daemon datasets {verb}" in text
    assert "--json" in text
