"""Folders in transformers' layout through the command line: added, tuned, evaluated, served; each family of the study.

The models are tiny and random. All commands of a module run in one process, which imports torch once.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import many_commands
from support.running_daemon import home_environment, run_cli
from support.tiny_folder import CONTEXT, FILL_FORMATS, write_folder

pytestmark = pytest.mark.torch

FAMILIES = tuple(FILL_FORMATS)
SERVED_EACH_TIME = ("t5",)
"""The one with an encoder; the others are served in the long tests."""
ROWS = [
    {"intent": f"add {number} to x", "code": f"x + {number}", "split": "train" if number < 4 else "test"}
    for number in range(6)
]


@dataclass(frozen=True)
class Story:
    """What the commands said about the model of one family."""

    environment: dict[str, str]
    folder: Path
    said: dict[str, many_commands.Said]

    def json(self, command: str) -> Any:
        code, out, err = self.said[command]
        assert code == 0, err
        return json.loads(out.splitlines()[-1] if command in ("tune", "evaluate") else out)


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Story]:
    top = tmp_path_factory.mktemp("folders")
    environment = {
        **home_environment(top / "h", top / "m"),
        "PEFT_DAEMON_THREADS": "1",
        "PEFT_DAEMON_SHIPPED_ADAPTERS": "false",
    }
    data = top / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    calls: dict[tuple[str, str], many_commands.Call] = {}
    folders = {family: write_folder(family, top / f"Tiny {family}") for family in FAMILIES}
    few = ("--max-steps", "2", "--batch-size", "2", "--threads", "1", "--nice", "0", "--json")
    for family, folder in folders.items():
        own = {"PEFT_DAEMON_MODEL": f"tiny-{family}"}
        asked = ("--strategy", "zero-shot", "--strategy", f"adapter:{family}", "--max-tokens", "4", "--json")
        named = ("--base", f"tiny-{family}", "--name", family)
        calls |= {
            (family, "add"): (("models", "add", str(folder), "--no-check", "--json"), {}),
            (family, "tune"): (("tune", "--dataset", str(data), *named, *few), {}),
            (family, "use"): (("adapters", "use", family, "--json"), own),
            (family, "show"): (("adapters", "show", family, "--json"), own),
            (family, "evaluate"): (("evaluate", "--dataset", str(data), *named, *asked), {}),
            (family, "llamacpp"): (("evaluate", "--dataset", str(data), *named, "--engine", "llamacpp"), {}),
        }
    for family in FAMILIES:
        other = FAMILIES[FAMILIES.index(family) - 1]
        calls[family, "other base"] = (("adapters", "use", family), {"PEFT_DAEMON_MODEL": f"tiny-{other}"})
    virtual = ("tune", "--dataset", str(data), "--base", "tiny-t5", "--name", "virtual", "--method", "prompt", *few)
    calls["t5", "virtual"] = (virtual, {})
    calls["t5", "beams"] = (("evaluate", "--dataset", str(data), "--base", "tiny-t5", "--beams", "2"), {})
    calls["", "list"] = (("models", "list", "--json"), {})
    said = dict(zip(calls, many_commands.run(list(calls.values()), environment, cwd=top), strict=True))
    common = {"list": said["", "list"]}
    return {
        family: Story(
            {**environment, "PEFT_DAEMON_MODEL": f"tiny-{family}"},
            folder,
            {**common, **{command: each for (which, command), each in said.items() if which == family}},
        )
        for family, folder in folders.items()
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_is_added_where_it_lies_with_what_it_says_of_itself(stories: dict[str, Story], family: str) -> None:
    story = stories[family]
    added = story.json("add")
    assert (added["id"], added["path"], added["family"]) == (f"tiny-{family}", str(story.folder), family)
    assert (added["fill_format"], added["intent_format"]) == (FILL_FORMATS[family], "instruct-v1")
    assert (added["quantization"], added["context_tokens"], added["licence"]) == ("F32", CONTEXT, "unknown")
    row = next(row for row in story.json("list") if row["id"] == added["id"])
    assert (row["installed"], row["added"], row["path"]) == (True, True, str(story.folder))
    assert row["sha256"] == added["sha256"]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_tuned_and_its_adapter_names_the_folder_by_its_weights(stories: dict[str, Story], family: str) -> None:
    from peft_daemon.engines.torch.families import family_of

    story = stories[family]
    made = story.json("tune")
    assert (made["in_use"], "only 2 held-out sentences to judge by" in made["why_not"]) == ([], True)
    assert story.json("use")["name"] == family
    manifest = story.json("show")["manifest"]
    assert (manifest["base"], manifest["base_sha256"]) == (f"tiny-{family}", story.json("add")["sha256"])
    assert (manifest["engines"], manifest["gguf_bytes"], manifest["scales"]) == (["torch"], 0, True)
    assert set(manifest["targets"]) == set(family_of(family).lora_targets)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_evaluated_with_and_without_its_adapter(stories: dict[str, Story], family: str) -> None:
    report = stories[family].json("evaluate")
    assert [each["id"] for each in report["strategies"]] == ["zero-shot", f"adapter:{family}"]


@pytest.mark.parametrize("family", FAMILIES)
def test_its_adapter_meets_no_other_base_and_llama_cpp_no_folder(stories: dict[str, Story], family: str) -> None:
    code, _, err = stories[family].said["other base"]
    assert (code, f"was made for tiny-{family}" in err) == (5, True), err
    code, _, err = stories[family].said["llamacpp"]
    assert (code, f"llama.cpp cannot run 'tiny-{family}'" in err, "Set `engine` to auto" in err) == (2, True, True), err


def test_what_an_encoder_makes_impossible_is_said_before_anything_is_loaded(stories: dict[str, Story]) -> None:
    for command, message in (("virtual", "Choose `--method lora`"), ("beams", "Leave --beams out")):
        code, out, err = stories["t5"].said[command]
        assert (code, message in out + err) == (2, True), out + err


@pytest.fixture
def answering(request: pytest.FixtureRequest, stories: dict[str, Story]) -> Iterator[Story]:
    story = stories[request.param]
    yield story
    run_cli("stop", environment=story.environment)


@pytest.mark.parametrize(
    "answering",
    [
        pytest.param(family, marks=() if family in SERVED_EACH_TIME else pytest.mark.long, id=family)
        for family in FAMILIES
    ],
    indirect=True,
)
def test_the_daemon_serves_it_in_torch_with_its_adapter(answering: Story, tmp_path: Path) -> None:
    environment = answering.environment
    family = answering.json("add")["family"]
    code = tmp_path / "a.py"
    code.write_text("def f(x):\n    return \n")
    where = ("--file", str(code), "--line", "2", "--column", "12", "--max-tokens", "4", "--json")
    filled = json.loads(run_cli("complete", *where, environment=environment).stdout)
    assert (filled["model"], filled["task"], filled["adapter"]) == (f"tiny-{family}", "fill", None)
    asked = ("--adapter", family, "--max-tokens", "8", "--json")
    said = json.loads(run_cli("generate", "add 1 to x", *asked, environment=environment).stdout)
    assert (said["task"], said["adapter"]["name"]) == ("intent", family)
    status = json.loads(run_cli("status", "--json", environment=environment).stdout)
    assert (status["engine"]["kind"], status["engine"]["state"]) == ("torch", "ready")
    assert status["engine"]["adapters"] == [said["adapter"]["digest"]]


@pytest.mark.long
def test_what_cannot_be_used_is_refused_in_one_line_and_nothing_is_kept_of_it(tmp_path: Path) -> None:
    unknown, short, misfit = (write_folder("llama", tmp_path / name) for name in ("unknown", "short", "misfit"))
    for folder, change in ((unknown, {"model_type": "phi3"}), (misfit, {"num_hidden_layers": 3})):
        config = folder / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    weights = short / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    calls: list[many_commands.Call] = [(("models", "add", str(each)), {}) for each in (unknown, short, misfit)]
    said = many_commands.run(calls, home_environment(tmp_path / "h", tmp_path / "m"), cwd=tmp_path)
    for (code, _, err), message in zip(
        said,
        ("known types: qwen2, qwen3, llama, codegen", "is cut short", "do not fit each other: the files have no"),
        strict=True,
    ):
        last = err.splitlines()[-1]
        assert (code, message in last, "Traceback" in err) == (2, True, False), err
    assert not (tmp_path / "h" / "data" / "models.json").exists()
    assert not list((tmp_path / "m").glob("*/verified.json"))


FEW = {"tune": ("--threads", "1", "--nice", "0", "--epochs", "1"), "evaluate": ("--max-tokens", "4")}
PAGE = Path(__file__).parents[3] / "docs" / "models.md"


@pytest.mark.long
def test_the_commands_of_the_page_run_one_after_the_other(tmp_path: Path) -> None:
    section = (
        PAGE.read_text(encoding="utf-8").partition("## A folder in transformers' layout\n")[2].partition("\n## ")[0]
    )
    lines = [line.strip() for line in section.splitlines() if re.match(r"    (\w+=\S+ )?peft-daemon ", line)]
    assert len(lines) == 4
    write_folder("codegen", tmp_path / "models" / "codegen-350M-mono", dtype="float16")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "a.py").write_text("def f(x):\n    return \n")
    calls: list[many_commands.Call] = []
    for line in lines:
        before, _, command = line.partition("peft-daemon ")
        variables = dict(each.split("=", 1) for each in before.split())
        few = FEW.get(command.split()[0], ())
        calls.append(([*command.replace("~", str(tmp_path)).split(), *few], variables))
    environment = {**home_environment(tmp_path / "h", tmp_path / "m"), "PEFT_DAEMON_THREADS": "1"}
    calls.append((["stop"], {}))
    for (code, out, err), (arguments, _) in zip(
        many_commands.run(calls, environment, cwd=tmp_path), calls, strict=True
    ):
        assert code == 0, (arguments, out, err)
        if arguments[:2] == ["models", "add"]:
            assert "holes      left-to-right-v1: it has no tokens for filling in" in out
            assert "family     codegen, F16" in out


def test_a_folder_that_changes_is_not_loaded_again(stories: dict[str, Story], tmp_path: Path) -> None:
    folder = tmp_path / "changing"
    write_folder("qwen3", folder, seed=5)
    environment = home_environment(tmp_path / "h", tmp_path / "m")
    run_cli("models", "add", str(folder), "--no-check", environment=environment)
    own = {**environment, "PEFT_DAEMON_MODEL": "changing"}
    template = folder / "chat_template.jinja"
    template.write_text("{{ messages[0].content }}")
    started = run_cli("start", environment=own, check=False)
    assert (started.returncode, "is not what was added" in started.stderr) != (0, False), started.stderr
    assert "peft-daemon models remove changing" in started.stderr
    template.unlink()
    assert run_cli("models", "pull", "changing", environment=own).returncode == 0
    shutil.rmtree(folder)
    gone = run_cli("start", environment=own, check=False)
    assert "the folder of model 'changing' is gone" in gone.stderr
    assert run_cli("models", "remove", "changing", environment=own).returncode == 0
