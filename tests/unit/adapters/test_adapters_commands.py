"""``peft-daemon adapters``: each verb does what its line of help says, for people and as JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from peft_cli.adapters import app
from peft_core.errors import Conflict, InvalidInput, NotFound, PeftDaemonError
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.models import catalogue
from peft_daemon.models.content import VERIFIED_RECORD_FILE, VerificationRecord
from peft_daemon.models.store import open_store
from support.synthetic_adapter import lora, write_peft


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own, where the tiny model passes for the default model, verified."""
    monkeypatch.setenv("PEFT_DAEMON_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    entry = catalogue.get(Settings().model)
    folder = open_store(Settings(), Paths.from_environment()).folder / entry.id
    folder.mkdir(parents=True)
    shutil.copyfile(base.path, folder / entry.file)
    info = (folder / entry.file).stat()
    record = VerificationRecord(
        file=entry.file, sha256=entry.sha256, bytes=info.st_size, mtime_ns=info.st_mtime_ns, verified="", source=""
    )
    (folder / VERIFIED_RECORD_FILE).write_bytes(msgspec.json.encode(record))


def call(*arguments: object) -> str:
    """What a successful command prints."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def call_json(*arguments: object) -> Any:
    return json.loads(call(*arguments, "--json"))


def import_adapter(tmp_path: Path, name: str, seed: int = 1) -> str:
    folder = write_peft(tmp_path / f"peft{seed}", lora(seed=seed))
    return str(call_json("import", folder, "--name", name, "--task", "fill")["digest"])


def test_an_empty_list_says_how_to_begin() -> None:
    assert "adapters import" in call("list")
    assert call_json("list") == []


def test_an_imported_adapter_is_listed_and_shown(tmp_path: Path) -> None:
    digest = import_adapter(tmp_path, "mine")
    assert [(row["name"], row["digest"], row["task"]) for row in call_json("list")] == [("mine", digest, "fill")]
    assert digest[:12] in call("list")
    shown = call_json("show", "mine")
    assert shown["manifest"]["digest"] == digest
    assert [version["digest"] for version in shown["history"]] == [digest]
    text = call("show", digest[:8])
    for expected in (digest, "rank 4", "q_proj", "unknown", "nowhere"):
        assert expected in text


def test_use_and_unset_say_what_serves_what(tmp_path: Path) -> None:
    digest = import_adapter(tmp_path, "mine")
    used = call_json("use", "mine", "--task", "fill", "--repository", tmp_path)
    assert used == {"name": "mine", "digest": digest, "tasks": ["fill"], "repository": str(tmp_path)}
    assert call_json("show", "mine")["active_for"] == [f"fill@{tmp_path}"]
    assert call_json("use", "base") == {
        "name": "base",
        "digest": None,
        "tasks": ["fill", "intent", "edit"],
        "repository": None,
    }
    call("unset", "--repository", tmp_path)
    assert call_json("show", "mine")["active_for"] == []


def test_without_a_task_an_adapter_serves_what_it_was_trained_for(tmp_path: Path) -> None:
    import_adapter(tmp_path, "mine")
    assert call_json("use", "mine")["tasks"] == ["fill"]
    assert call_json("show", "mine")["active_for"] == ["fill"]
    call("import", write_peft(tmp_path / "both", lora(seed=2)), "--name", "both")
    assert call_json("use", "both")["tasks"] == ["fill", "intent"]
    assert "no" in call("list").splitlines()[-2].split(), "nothing is left to the first"


def test_an_adapter_serves_only_tasks_whose_model_is_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFT_DAEMON_INTENT_MODEL", "qwen2.5-coder-1.5b-instruct")
    call("import", write_peft(tmp_path / "both", lora(seed=2)), "--name", "both")
    assert call_json("use", "both")["tasks"] == ["fill"]
    assert call_json("show", "both")["active_for"] == ["fill"]
    with pytest.raises(Conflict, match=r"not for qwen2\.5-coder-1\.5b-instruct"):
        call("use", "both", "--task", "intent")
    assert call_json("use", "base")["tasks"] == ["fill", "intent", "edit"]
    # An adapter for sentences is made for the model that answers them, and this one is not installed.
    with pytest.raises(NotFound, match=r"models pull qwen2\.5-coder-1\.5b-instruct"):
        call("import", write_peft(tmp_path / "third", lora(seed=3)), "--name", "third", "--task", "intent")


def test_an_adapter_for_completions_serves_no_next_edits_and_the_other_way_round(tmp_path: Path) -> None:
    call("import", write_peft(tmp_path / "fills", lora(seed=2)), "--name", "fills")
    call("import", write_peft(tmp_path / "edits", lora(seed=3)), "--name", "edits", "--task", "edit")
    with pytest.raises(Conflict, match="fills cannot serve the task 'edit'"):
        call("use", "fills", "--task", "edit")
    with pytest.raises(Conflict, match="edits cannot serve the task 'fill'"):
        call("use", "edits", "--task", "fill")
    assert call_json("use", "edits")["tasks"] == ["edit"]


def test_rollback_shows_what_the_name_means_again(tmp_path: Path) -> None:
    first = import_adapter(tmp_path, "mine", 1)
    import_adapter(tmp_path, "mine", 2)
    assert call_json("rollback", "mine")["digest"] == first


def test_an_exported_folder_can_be_imported(tmp_path: Path) -> None:
    digest = import_adapter(tmp_path, "mine")
    path = call_json("export", "mine", tmp_path / "out")["path"]
    assert call_json("import", path, "--name", "copy")["digest"] == digest
    assert Path(call_json("export", "copy", tmp_path, "--format", "gguf")["path"]).name == "copy.gguf"


def test_remove_refuses_what_is_in_use_without_force(tmp_path: Path) -> None:
    import_adapter(tmp_path, "mine")
    call("use", "mine")
    with pytest.raises(Conflict, match="--force"):
        call("remove", "mine")
    assert call_json("remove", "mine", "--force") == {"removed": "mine"}
    assert call_json("list") == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("show", "gone"), NotFound),
        (("use", "gone"), NotFound),
        (("rollback", "gone"), NotFound),
        (("remove", "gone"), NotFound),
        (("export", "gone", "x"), NotFound),
        (("import", "gone", "--name", "x"), NotFound),
        (("import", "gone", "--name", "base"), InvalidInput),
        (("import", "gone", "--name", "x", "--base", "no-such-model"), NotFound),
    ],
)
def test_a_mistake_is_an_expected_error_with_a_next_step(
    arguments: tuple[str, ...], error: type[PeftDaemonError]
) -> None:
    with pytest.raises(error) as caught:
        call(*arguments)
    assert caught.value.fix


def test_an_adapter_of_another_base_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_adapter(tmp_path, "mine")
    monkeypatch.setenv("PEFT_DAEMON_MODEL", "qwen2.5-coder-1.5b-instruct")
    with pytest.raises(Conflict, match="was made for"):
        call("use", "mine")


def test_a_records_words_are_printed_as_they_are(tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "peft", record={"licence": "[bold]MIT[/bold] [link=file:///x]y[/link]"})
    call("import", folder, "--name", "mine")
    assert "[bold]MIT[/bold] [link=file:///x]y[/link]" in call("show", "mine")


@pytest.mark.parametrize("verb", ["list", "show", "use", "unset", "rollback", "import", "export", "remove"])
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    text = call(verb, "--help")
    assert f"Example: peft-daemon adapters {verb}" in text
    assert "--json" in text
