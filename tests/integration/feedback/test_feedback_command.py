"""``peft-daemon feedback``: what it prints, what it removes, and that what it exports can be tuned on."""

from __future__ import annotations

import json
import sqlite3
import stat
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from peft_cli.feedback import app
from peft_core.api_types import FeedbackRequest, Outcome
from peft_core.errors import Conflict, InvalidInput, NotFound
from peft_core.paths import Paths
from peft_core.privacy.values import MASK
from peft_daemon.feedback import FeedbackStore
from peft_tuning.data.datasets.jsonl import load
from peft_tuning.data.examples import FillExample, HoleKind

# Written in two pieces, so that nobody takes this file for one that holds a secret.
SECRET = "AKIA" + "IOSFODNN7EXAMPLQ"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeedbackStore:
    monkeypatch.setenv("PEFT_DAEMON_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return FeedbackStore(Paths.from_environment().feedback_file, keeps_text=True)


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def call_json(*arguments: object) -> Any:
    return json.loads(call(*arguments, "--json"))


def tell(store: FeedbackStore, now: str | None = "1", **fields: object) -> None:
    values: dict[str, object] = {
        "outcome": Outcome.ACCEPTED,
        "language": "python",
        "model": "m",
        "prefix": "x = ",
        "suffix": "\n",
        "suggestion": "1",
        "shown": 1,
        "accepted": 1,
        "stood": 1,
        "kept": 1,
        **fields,
    }
    store.add(FeedbackRequest(offer=str(store.count()), now=now, **values))  # type: ignore[arg-type]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    (root / "vendor").mkdir(parents=True)
    for name in ("app.py", "secret_plans.py", "vendor/other.py", "private.py", "new.py"):
        (root / name).write_text("x = 1\n")
    (root / ".gitignore").write_text("private.py\n")
    (root / ".peft-daemon.toml").write_text('[tune]\nignore = ["secret_*"]\n')
    for command in (["init", "-q"], ["add", "app.py", "secret_plans.py", "vendor"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


def test_show_has_a_line_for_each_adapter_and_language(store: FeedbackStore) -> None:
    assert "nothing" in call("show")
    assert call_json("show")["lines"] == []
    tell(store)
    tell(store, None, outcome=Outcome.REJECTED, accepted=0, stood=0, kept=None)
    (line,) = call_json("show")["lines"]
    assert (line["offers"], line["accepted"], line["rejected"], line["still_there"]) == (2, 0.5, 0.5, 1.0)
    assert "50%" in call("show")


def test_show_says_what_is_kept_where_and_how_to_change_that(
    store: FeedbackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = FeedbackStore(store.file)
    tell(counting)
    said = " ".join(call("show").split())
    assert f"kept in {store.file}, and sent nowhere: 1 suggestions, counts of each, no code" in said
    assert "setting: feedback = counts" in said
    assert 'write feedback = "text" into the file that `peft-daemon config --path` names' in said
    tell(store)
    monkeypatch.setenv("PEFT_DAEMON_FEEDBACK", "text")
    said = " ".join(call("show").split())
    assert "2 suggestions, counts of each; of 1 the code around them too" in said
    assert "up to 8,000 characters of code on each side" in said
    shown = call_json("show")
    assert {name: shown[name] for name in ("setting", "file", "suggestions", "with_text", "unasked_text")} == {
        **{"setting": "text", "file": str(store.file), "suggestions": 2, "with_text": 1, "unasked_text": 0}
    }


def test_code_kept_before_anybody_was_asked_is_told_left_alone_and_removed_on_request(store: FeedbackStore) -> None:
    tell(store)
    with closing(sqlite3.connect(store.file)) as database:
        database.execute("UPDATE feedback SET text = 'unasked'")
        database.commit()
    assert "an earlier version kept without asking you" in call("show")
    with pytest.raises(NotFound, match="nothing to export"):
        call("export", "out.jsonl")
    with pytest.raises(InvalidInput, match="the code around 1 recorded suggestions"):
        call("clear", "--text")
    assert call_json("clear", "--text", "--yes") == {"removed": 1}
    assert "an earlier version" not in call("show")
    assert call_json("show")["lines"][0]["offers"] == 1


def test_without_consent_there_is_nothing_to_export_and_it_is_said_how_to_agree(store: FeedbackStore) -> None:
    tell(FeedbackStore(store.file))
    with pytest.raises(NotFound, match="nothing to export") as refused:
        call("export", "out.jsonl")
    assert 'feedback = "text"' in refused.value.fix
    assert not Path("out.jsonl").exists()


def test_clear_says_what_it_removes_and_asks_for_a_yes(store: FeedbackStore) -> None:
    tell(store)
    with pytest.raises(InvalidInput, match="1 recorded suggestions"):
        call("clear")
    assert store.count() == 1
    assert call_json("clear", "--yes") == {"removed": 1}
    assert store.count() == 0


def test_clear_removes_a_file_that_cannot_be_read(store: FeedbackStore) -> None:
    store.file.parent.mkdir(parents=True)
    store.file.write_bytes(b"not a database " * 100)
    assert call_json("clear", "--yes") == {"removed": 0}
    assert not store.file.exists()


def test_an_export_is_a_data_set_of_what_was_kept(store: FeedbackStore, repository: Path, tmp_path: Path) -> None:
    tell(store, "max(\n    a,\n)", prefix="x = f(", suffix=")\ny\n", replaced=1, path=str(repository / "app.py"))
    tell(store, "f(2)", language="go", stood=3)
    tell(store, "9", outcome=Outcome.TYPED, language="c")
    tell(store, "9", outcome=Outcome.PARTLY)
    tell(store, "", kept=0)
    tell(store, None, outcome=Outcome.REJECTED, kept=None, suggestion="never")
    printed = call_json("export", "out.jsonl")
    assert printed == {"path": str(tmp_path / "out.jsonl"), "examples": 3, "dropped": {}}
    assert "never" not in (tmp_path / "out.jsonl").read_text()
    assert stat.S_IMODE((tmp_path / "out.jsonl").stat().st_mode) == 0o600
    found = load(tmp_path / "out.jsonl", seed=1)
    examples = {example.language: example for example in (*found.train, *found.validation, *found.test)}
    first = examples["python"]
    assert isinstance(first, FillExample)
    assert (first.prefix, first.middle, first.suffix) == ("x = f(", "max(\n    a,\n)", "\ny\n")
    assert (first.path, first.kind) == ("app.py", HoleKind.BLOCK)
    assert first.weight > examples["go"].weight > examples["c"].weight == 1, "kept, edited, typed by hand"
    assert "examples" in call("export", "again.jsonl")


@pytest.mark.parametrize("name", ["secret_plans.py", "vendor/other.py", "private.py", "new.py", "gone.py"])
def test_files_that_tuning_would_not_read_are_left_out(store: FeedbackStore, repository: Path, name: str) -> None:
    tell(store, path=str(repository / name))
    printed = call_json("export", "out.jsonl")
    assert (printed["examples"], printed["dropped"]) == (0, {"of a file that is not learned from": 1})


def test_outside_a_repository_the_project_file_alone_decides(store: FeedbackStore, tmp_path: Path) -> None:
    (tmp_path / ".peft-daemon.toml").write_text('[tune]\nignore = ["sub/private.py"]\n')
    (tmp_path / "sub").mkdir()
    tell(store, path=str(tmp_path / "sub/private.py"))
    tell(store, path=str(tmp_path / "sub/public.py"))
    assert call_json("export", "out.jsonl")["examples"] == 1


def test_no_secret_gets_into_an_export(store: FeedbackStore, tmp_path: Path) -> None:
    tell(store, f'"{SECRET}"', prefix="a\nkey = ")
    tell(store, "1", prefix=f'a\nkey = "{SECRET}"\nx = ', suffix=f'  # end\nother = "{SECRET}"\nz\n')
    # Nothing of the one that has it is kept; in the other it is masked. What only tuning sees for one is emptied there.
    tell(store, "2", prefix="a\nhash = '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b'\nx = ")
    assert call_json("export", "out.jsonl")["examples"] == 2
    text = (tmp_path / "out.jsonl").read_text()
    assert SECRET not in text
    assert "9f86d081" not in text
    first, second = map(json.loads, text.splitlines())
    assert (first["middle"], second["prefix"]) == ("1", "a\n\nx = ")
    assert first["prefix"] == f'a\nkey = "{MASK}"\nx = '


def test_a_file_is_never_overwritten_and_its_folder_has_to_exist(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(Conflict, match="exists"):
        call("export", "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "mine"
    with pytest.raises(NotFound, match="no folder"):
        call("export", "nowhere/out.jsonl")


@pytest.mark.torch
def test_a_tiny_model_is_tuned_on_an_export(store: FeedbackStore, tmp_path: Path) -> None:
    from peft_tuning.events import ignore
    from peft_tuning.trainer import tune
    from support import tiny_run

    for number in range(12):
        tell(store, f"a + {number}", prefix=f"def f{number}(a):\n    return ")
    call("export", "out.jsonl")
    data = load(tmp_path / "out.jsonl", seed=1)
    result = tune(tiny_run.job(), tiny_run.base(), data, tiny_run.FORMATS, folder=tmp_path / "run", on_progress=ignore)
    assert result.losses[-1][1] < result.losses[0][1]
    assert tiny_run.adapter_bytes(tmp_path / "run/adapter")
