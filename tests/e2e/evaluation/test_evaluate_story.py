"""A user compares two ways of asking the real model, on a file of their own, and gets a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peft_evaluation.report import store
from support import many_commands
from support.running_daemon import home_environment, run_cli

pytestmark = [pytest.mark.model, pytest.mark.torch, pytest.mark.timeout(600)]

ROWS = [
    ("sort list `xs`", "xs.sort()", "train"),
    ("get the length of list `xs`", "len(xs)", "train"),
    ("last item of list `xs`", "xs[-1]", "train"),
    ("reverse list `xs`", "xs.reverse()", "validation"),
    ("convert string `s` to upper case", "s.upper()", "test"),
    ("get the keys of dictionary `d` as a list", "list(d.keys())", "test"),
    ("sum of list `xs`", "sum(xs)", "test"),
]


@pytest.fixture(scope="module")
def environment(models_dir: Path, model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return home_environment(tmp_path_factory.mktemp("e"), models_dir)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "mine.jsonl"
    keys = ("intent", "code", "split")
    path.write_text("\n".join(json.dumps(dict(zip(keys, row, strict=True))) for row in ROWS))
    return path


def evaluate(environment: dict[str, str], *arguments: str) -> list[dict[str, Any]]:
    printed = run_cli("evaluate", *arguments, "--json", environment=environment).stdout
    return [json.loads(line) for line in printed.splitlines()]


def test_strategies_are_compared_on_the_same_items_and_added_later(environment: dict[str, str], file: Path) -> None:
    asked = ("--dataset", str(file), "--max-tokens", "24")
    told = evaluate(environment, *asked, "--strategy", "zero-shot", "--strategy", "icl", "--seed", "42")
    assert [event["type"] for event in told if event["type"] != "loading"] == ["answered"] * 6 + ["reported"]
    report = store.read_report(Path(told[-1]["folder"]))
    assert [strategy.id for strategy in report.strategies] == ["zero-shot", "icl-3"]
    assert [item.reference for item in report.items] == ["s.upper()", "list(d.keys())", "sum(xs)"]
    shown = report.items[0].answers[1]
    assert len(set(shown.examples)) == 3
    # Three one-line examples are enough for the real model to answer in one line as well.
    assert report.strategies[1].metrics["em@1"].value >= 2 / 3
    assert "zero-shot" in (Path(told[-1]["folder"]) / "report.md").read_text(encoding="utf-8")

    refused = run_cli("evaluate", *asked, "--strategy", "rag", environment=environment, check=False)
    assert refused.returncode == 5 and "--resume" in refused.stderr
    more = evaluate(environment, *asked, "--strategy", "rag", "--neighbours", "2", "--resume")
    assert [event["type"] for event in more if event["type"] != "loading"] == ["answered"] * 3 + ["reported"]
    assert [strategy["id"] for strategy in more[-1]["strategies"]] == ["zero-shot", "icl-3", "rag-bm25-2"]


@pytest.mark.long
def test_torch_answers_all_items_at_once_and_searches_with_the_adapter_of_the_package(
    environment: dict[str, str], file: Path
) -> None:
    asked = ("--dataset", str(file), "--max-tokens", "16", "--engine", "torch", "--beams", "4")
    strategies = ("--strategy", "icl", "--seed", "42", "--strategy", "adapter:conala")
    environment = {**environment, "PEFT_DAEMON_SHIPPED_ADAPTERS": "true"}
    told = evaluate(environment, *asked, *strategies, "--name", "beams")
    report = store.read_report(Path(told[-1]["folder"]))
    assert {len(set(answer.texts)) for item in report.items for answer in item.answers} <= {2, 3, 4}
    in_context, adapted = report.strategies
    for strategy in (in_context, adapted):
        assert 2 / 3 <= strategy.metrics["em@1"].value <= strategy.metrics["em@2"].value
        assert strategy.costs.at_once == 32  # rows of a batch, of which each item takes one for each beam
    assert adapted.metrics["syntax"].value == 1
    assert adapted.costs.adapter_bytes is not None


@pytest.mark.long
def test_answers_of_the_real_model_are_run_in_the_sandbox(environment: dict[str, str]) -> None:
    from support.shared_data import shared_data

    own = {**environment, "PEFT_DAEMON_DATA": str(shared_data())}
    asked = ("--dataset", "humaneval", "--strategy", "zero-shot", "--limit", "3", "--max-tokens", "200")
    told = evaluate(own, *asked, "--pass-at", "1")
    report = store.read_report(Path(told[-1]["folder"]))
    assert report.sandbox == "bubblewrap"
    assert [event["type"] for event in told if event["type"] != "loading"] == ["answered"] * 3 + ["ran"] * 3 + [
        "reported"
    ]
    figure = report.strategies[0].metrics["pass@1"]
    # The model solves most of the easy beginning of HumanEval: two of three leaves room for another build's rounding.
    assert figure.value >= 2 / 3 and (figure.count, figure.interval) == (3, "wilson")
    assert sum(answer.outcomes[0] == "passed" for item in report.items for answer in item.answers) >= 2
    again = evaluate(own, *asked, "--pass-at", "1", "--resume")
    assert not [event for event in again if event["type"] in ("answered", "ran")]


@pytest.mark.long
def test_a_study_tunes_and_evaluates_the_real_model(environment: dict[str, str], file: Path) -> None:
    study = file.with_name("study.toml")
    study.write_text(
        'name = "small"\nmodels = ["qwen2.5-coder-0.5b-instruct"]\nmethods = ["ia3"]\nstrategies = ["icl-3"]\n'
        f'[[datasets]]\nname = "{file.name}"\nmax_tokens = 24\n[tuning]\nmax_steps = 2\n'
    )
    told = evaluate(environment, "--study", str(study))
    assert [event["cell"] for event in told if event["type"] == "cell_ended" and not event["reason"]] == [
        "zero-shot × mine",
        "icl-3 × mine, seed 42",
        "ia3 × mine, seed 42",
    ]
    rows = {row["name"]: row for row in told[-1]["tables"][0]["rows"]}
    assert rows["icl-3"]["metrics"]["em@1"]["value"] >= 2 / 3  # as above
    assert rows["ia3"]["tuning"]["trainable_parameters"] == 208_896
    assert rows["ia3"]["tuning"]["peak_memory_bytes"] > 1.5e9
    assert rows["ia3"]["answering"]["peak_memory_bytes"] > 1.5e9


REFUSED = [
    (("--dataset", "conala", "--strategy", "magic"), "there is no strategy 'magic'", 2),
    (("--dataset", "conala", "--strategy", "adapter:nobody"), "no adapter 'nobody'", 2),
    (("--dataset", "nothing"), "there is no data set 'nothing'", 3),
    ((), "exactly one of --dataset, --repo and --study", 2),
    (("--dataset", "conala", "--plan"), "--plan goes with --study only", 2),
    (("--study", "mine.toml", "--limit", "1"), "--limit cannot be given with --study", 2),
    (("--study", "/nowhere/mine.toml"), "there is no study at /nowhere/mine.toml", 3),
    (("--dataset", "conala", "--name", "../elsewhere"), "cannot be an evaluation's name", 2),
    (("--dataset", "conala", "--samples", "2", "--beams", "2"), "either --samples or --beams", 2),
    (("--dataset", "conala", "--pass-at", "1"), "conala has no tests", 2),
    (("--dataset", "humaneval", "--pass-at", "5", "--samples", "3"), "pass@5 of 3 answers", 2),
]


def test_what_cannot_be_done_is_said_in_one_line(environment: dict[str, str]) -> None:
    from support.shared_data import shared_data

    data = {**environment, "PEFT_DAEMON_DATA": str(shared_data())}
    without_programs = ("evaluate", "--dataset", "humaneval", "--pass-at", "1", "--limit", "1")
    calls = [(("evaluate", *arguments), {}) for arguments, _, _ in REFUSED]
    expected = [(message, code) for _, message, code in REFUSED]
    said = many_commands.run([*calls, (without_programs, {"PATH": "/nowhere"})], data)
    for (code, _, error), (message, exit_code) in zip(
        said, [*expected, ("bubblewrap is not installed", 3)], strict=True
    ):
        assert (code, message in error) == (exit_code, True), error
        assert error.count("\n") == 1 and "Traceback" not in error
