"""A study's file says what is compared; a mistake in it is named with its file, its key and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_core.errors import InvalidInput, NotFound
from peft_evaluation.model import Beams, Greedy, Samples
from peft_evaluation.study.definition import Cell, Study, StudyData, read_study

pytestmark = pytest.mark.torch

WHOLE = """
name = "small"
models = ["one", "two"]
methods = ["lora", "ia3"]
strategies = ["zero-shot", "icl-3", "rag-bm25-2", "adapter+rag-bm25-2"]
seeds = [42, 7]

[[datasets]]
name = "conala"
train = 300
validation = 50
test = 100
beams = 10

[[datasets]]
name = "mine.jsonl"
path_of_nothing = 1

[tuning]
epochs = 2
threads = 1

[options.lora]
rank = 8
learning_rate = 1e-4
""".replace("path_of_nothing = 1\n", "samples = 5\n")
LEAST = 'name = "least"\nmodels = ["one"]\n[[datasets]]\nname = "conala"\n'


def study(tmp_path: Path, text: str) -> Study:
    file = tmp_path / "study.toml"
    file.write_text(text, encoding="utf-8")
    return read_study(file)


def test_the_matrix_is_every_model_with_every_data_set_strategy_method_and_seed(tmp_path: Path) -> None:
    found = study(tmp_path, WHOLE)
    cells = found.cells()
    assert [cell.label for cell in found.cells_of("one", found.datasets[0])] == [
        "zero-shot × conala",
        "icl-3 × conala, seeds 42, 7",
        "rag-bm25-2 × conala",
        "lora × conala, seed 42",
        "lora × conala, seed 7",
        "ia3 × conala, seed 42",
        "ia3 × conala, seed 7",
        "lora + rag-bm25-2 × conala, seed 42",
        "lora + rag-bm25-2 × conala, seed 7",
        "ia3 + rag-bm25-2 × conala, seed 42",
        "ia3 + rag-bm25-2 × conala, seed 7",
    ]
    assert len({cell.id for cell in cells}) == len(cells) == 2 * 2 * 11
    assert {cell.data.label for cell in cells} == {"conala", "mine"}


def test_the_model_alone_is_in_every_study(tmp_path: Path) -> None:
    assert [cell.row for cell in study(tmp_path, LEAST).cells()] == ["zero-shot"]


def test_a_cell_is_tuned_as_the_file_says_and_an_adapter_with_a_strategy_is_the_same_adapter(tmp_path: Path) -> None:
    found = study(tmp_path, WHOLE)
    by_row = {cell.row: cell for cell in found.cells_of("one", found.datasets[0]) if cell.seeds == (7,)}
    job = found.job(by_row["lora"])
    assert (job.method, job.seed, job.epochs, job.threads, job.batch_size) == ("lora", 7, 2, 1, 8)
    assert (job.limit, job.validation_limit, job.learning_rate, job.options.rank) == (300, 50, 1e-4, 8)
    assert (found.job(by_row["ia3"]).learning_rate, found.job(by_row["ia3"]).options.rank) == (None, None)
    name = found.adapter(by_row["lora"])
    assert name == found.adapter(by_row["lora + rag-bm25-2"]) == "small-one-conala-lora-7"
    strategy, sweep = by_row["lora + rag-bm25-2"].strategy(name)
    assert (strategy, sweep.neighbours, sweep.retrievers) == (f"adapter+rag:{name}", (2,), ("bm25",))
    assert by_row["lora + rag-bm25-2"].strategy_id(name) == f"adapter+rag-bm25-2:{name}"
    assert by_row["lora"].strategy(name)[0] == by_row["lora"].strategy_id(name) == f"adapter:{name}"


@pytest.mark.parametrize(
    ("prompting", "strategy", "examples", "retriever"),
    [
        ("zero-shot", "zero-shot", 3, "bm25"),
        ("icl-5", "icl", 5, "bm25"),
        ("rag-dense-2", "rag", 3, "dense"),
        ("rag-gte-small-2", "rag", 3, "gte-small"),
    ],
)
def test_a_strategy_is_asked_for_as_evaluate_asks_for_it(
    prompting: str, strategy: str, examples: int, retriever: str
) -> None:
    asked, sweep = Cell(model="m", data=StudyData(name="conala"), prompting=prompting, seeds=(5,)).strategy("")
    assert (asked, sweep.examples, sweep.retrievers, sweep.seeds) == (strategy, (examples,), (retriever,), (5,))
    assert sweep.neighbours == ((2,) if "rag" in prompting else (3,))


def test_each_data_set_has_its_own_decoding_and_paths_are_those_beside_the_file(tmp_path: Path) -> None:
    found = study(tmp_path, WHOLE)
    assert [data.decoding for data in found.datasets] == [Beams(10), Samples(5)]
    assert StudyData(name="conala").decoding == Greedy()
    assert found.datasets[1].name == str(tmp_path / "mine.jsonl")
    with_path = study(tmp_path, LEAST + 'path = "data"\n')
    assert with_path.datasets[0].path == str(tmp_path / "data")


def bad(old: str, new: str) -> str:
    assert WHOLE.count(old) == 1
    return WHOLE.replace(old, new)


@pytest.mark.parametrize(
    ("text", "what", "allowed"),
    [
        ("name = ", "is not TOML", "Correct that line"),
        (bad('name = "small"', ""), "missing required field `name`", "name, models, datasets, methods"),
        (bad("seeds =", "sedes ="), "unknown field `sedes`", "methods, strategies, seeds"),
        (bad("train = 300", "trian = 300"), "unknown field `trian` in `datasets[0]`", "train, validation, test"),
        (bad("epochs = 2", "epoch = 2"), "unknown field `epoch` in `tuning`", "epochs, max_steps"),
        (bad("rank = 8", "rnk = 8"), "unknown field `rnk` in `options", "rank, alpha"),
        (bad("train = 300", "train = 0"), "`datasets[0].train` cannot be used: Expected `int` >= 1", ""),
        (bad("seeds = [42, 7]", "seeds = [-1]"), "`seeds[0]` cannot be used", ""),
        (bad("seeds = [42, 7]", "seeds = [7, 7]"), "`seeds` cannot be used: 7 is there twice", "once"),
        (bad('models = ["one", "two"]', "models = []"), "`models` cannot be used", ""),
        (bad('name = "small"', 'name = "Not/this"'), "`name` cannot be used", ""),
        (bad('"ia3"]', '"ia4"]'), "`methods` cannot be used: no method 'ia4'", "lora, qlora-4bit, qlora-8bit, ia3"),
        (bad('"ia3"]', '"full"]'), "no method 'full' makes an adapter", "prefix"),
        (bad('"icl-3"', '"icl"'), "`strategies` cannot be used: there is no strategy 'icl'", "icl-N, rag-bm25-N"),
        (bad('"icl-3"', '"rag-bm26-1"'), "there is no strategy 'rag-bm26-1'", "rag-dense-N"),
        (bad('name = "conala"', 'name = "humaneval"'), "no data set 'humaneval' to evaluate and tune on", "conala"),
        (bad("beams = 10", "beams = 10\nsamples = 2"), "either `samples` or `beams`", "Leave one of them out"),
        (bad("[options.lora]", "[options.prefix]"), "`options` cannot be used: 'prefix' is not among `methods`", ""),
        (WHOLE + '[answering]\nengine = "llamacpp"\n', "llama.cpp serves no adapters of ia3", "Choose 'torch'"),
        (WHOLE + '[answering]\nengine = "vllm"\n', "`answering.engine` cannot be used", "'torch', 'llamacpp'"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_what_is_allowed(
    tmp_path: Path, text: str, what: str, allowed: str
) -> None:
    with pytest.raises(InvalidInput) as found:
        study(tmp_path, text)
    assert found.value.line.startswith(str(tmp_path / "study.toml"))
    assert what in found.value.cause
    assert allowed in found.value.fix


def test_beams_need_torch_and_a_data_set_only_to_evaluate_on_needs_no_method(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="has no beam search"):
        study(tmp_path, LEAST + 'beams = 2\n[answering]\nengine = "llamacpp"\n')
    assert study(tmp_path, LEAST.replace("conala", "humaneval")).datasets[0].label == "humaneval"


def test_names_that_are_too_long_for_two_adapters_are_refused(tmp_path: Path) -> None:
    longest = "m" * 60
    with pytest.raises(InvalidInput, match="would have one name"):
        study(tmp_path, WHOLE.replace('"one"', f'"{longest}1"').replace('"two"', f'"{longest}2"'))


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no study at"):
        read_study(tmp_path / "nothing.toml")


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000, "a = ["], ids=["deep", "long", "open"])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput, match="is not TOML"):
        study(tmp_path, text)
