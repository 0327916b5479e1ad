"""Learning a repository: within a time, from the adapter that serves, judged against it; on a tiny base."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from peft_cli.output import parse_duration
from peft_cli.tune import _RepositorySizes, _seen, _source
from peft_core.api_types import ContextChunk, Task
from peft_core.errors import InvalidInput
from peft_daemon.adapters.manifest import Manifest
from peft_daemon.context.selection import SelectionLimits
from peft_daemon.engines.torch.base_model import Precision, load_model
from peft_daemon.engines.torch.families import family_of
from peft_tuning import budget, prepare
from peft_tuning.budget import LEFT_OUT, MAX_EPOCHS, fit
from peft_tuning.data.datasets import catalogue
from peft_tuning.data.datasets.sources import DataLocations
from peft_tuning.data.examples import DataSet, Example, FillExample
from peft_tuning.data.repository.chunks import selector_of_commit
from peft_tuning.events import AdapterRegistered, GateVerdict, Loading, TrainingStarted, TuneEvent
from peft_tuning.installation import Installation
from peft_tuning.job import TuneJob, load_identity, short_run
from peft_tuning.judging import judge_adapter
from peft_tuning.learned import document_digest, documents_learned, examples_seen, is_seen
from peft_tuning.likelihood import AnswerScorer
from peft_tuning.methods.base import MethodOptions
from peft_tuning.run import TuneRequest, run
from peft_tuning.start import StartingPoint, load_start, starting_point, what_serves, with_start
from support.own_repository import OwnRepository
from support.tiny_installation import tiny_installation
from support.tiny_served import tiny_gguf

pytestmark = pytest.mark.torch

QWEN_FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>")
WORDS = ("alpha", "beta", "gamma", "delta")


def hole(number: int, *, learn_all: bool = False) -> FillExample:
    word = WORDS[number % len(WORDS)]
    return FillExample(
        id=f"{'d' if learn_all else 'h'}{number}",
        prefix=f"def {word}_{number}(x):\n    return ",
        middle=f"{word}(x, {number % 10})",
        suffix=f"\n\n\nprint({word}_{number})\n",
        path=f"{word}.py",
        learn_all=learn_all,
    )


DATA = DataSet(
    name="own",
    train=tuple(hole(number, learn_all=True) for number in range(40)),
    validation=tuple(hole(number) for number in range(100, 106)),
    test=tuple(hole(number) for number in range(200, 212)),
    prompt_tokens=300,
    response_tokens=96,
)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = tiny_installation(tmp_path / "home")
    made.paths.cache.mkdir(parents=True)
    tiny_gguf(made.paths.cache, context=1024, control=(*QWEN_FIM, "<|endoftext|>"))
    return made


def request(repository: Path, **changes: object) -> TuneRequest:
    settings = {**short_run("lora"), "learning_rate": 2e-2, "options": MethodOptions(rank=4), "threads": 1}
    job = TuneJob(method="lora", **(settings | changes.pop("job", {})))  # type: ignore[arg-type, operator]
    return TuneRequest(name="own", job=job, load_data=lambda _tell: DATA, repository=repository, **changes)  # type: ignore[arg-type]


def events(asked: TuneRequest, installation: Installation) -> list[TuneEvent]:
    told: list[TuneEvent] = []
    run(asked, installation, told.append)
    return told


def begin(installation: Installation, manifest: Manifest) -> StartingPoint:
    return starting_point(installation.registry, manifest, family_of(installation.entry.family))


def only(told: list[TuneEvent], kind: type) -> TuneEvent:
    (found,) = [each for each in told if isinstance(each, kind)]
    return found


def made(told: list[TuneEvent], installation: Installation) -> Manifest:
    """The adapter that a run registered, in use or not."""
    last = told[-1]
    assert isinstance(last, AdapterRegistered)
    return installation.registry.get(last.digest)


def test_a_repository_is_learned_and_then_learned_on_from_what_serves(
    installation: Installation, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    told = events(request(repository, job={"epochs": 6}), installation)
    verdict = only(told, GateVerdict)
    assert isinstance(verdict, GateVerdict)
    assert (verdict.activate, verdict.opponent) == (True, installation.entry.id), verdict.reason
    assert verdict.base == verdict.served
    assert verdict.adapter.nats < verdict.served.nats - 0.1

    served = what_serves(installation.registry, str(repository), installation.base.sha256)
    assert served is not None and served.name == "own"
    assert what_serves(installation.registry, str(tmp_path), installation.base.sha256) is None
    again = events(
        request(
            repository,
            start=begin(installation, served),
            update=True,
            job={"max_steps": 2, "learning_rate": 1e-6, "options": MethodOptions()},
        ),
        installation,
    )
    second = only(again, GateVerdict)
    assert isinstance(second, GateVerdict)
    assert second.opponent == "own"
    assert second.served.nats == pytest.approx(verdict.adapter.nats, rel=0.02)
    assert second.adapter.nats < second.served.nats + 0.05 < second.base.nats - 0.05, (
        "it went on and did not begin anew"
    )
    identity = load_identity(installation.folder("own"))
    assert identity.start == f"{served.digest}@{served.scale:g}" and identity.options.rank == 4
    last = again[-1]
    assert isinstance(last, AdapterRegistered) and not last.in_use, second.reason
    now = what_serves(installation.registry, str(repository), installation.base.sha256)
    assert now is not None and now.digest == served.digest, "a version that was refused does not serve by its name"
    assert last.name == last.digest[:12] and installation.registry.get(last.name).digest == last.digest


def in_history(repository: OwnRepository) -> DataSet:
    """The data, with holes in lines that are newer than the repository's first commit, whose code they need."""
    helpers = {
        f"helpers/{word}.py": f"def {word}_helper({word}, number):\n    total = {word} * number\n    return total\n"
        for word in WORDS
    }
    repository.commit(helpers)
    tree = repository.git("rev-parse", "HEAD").strip()
    repository.commit({"helpers/alpha.py": "def rewritten_since(alpha):\n    return alpha\n", "new.py": "x = 1\n"})

    def with_import(example: FillExample) -> FillExample:
        (word, _, _) = example.path.partition(".")
        first = f"from helpers.{word} import {word}_helper\n\n\n"
        return replace(example, prefix=f"{first}{example.prefix}{word}_helper(x, number=1) + ")

    def newer(examples: Sequence[Example]) -> tuple[FillExample, ...]:
        return tuple(with_import(each) for each in examples if isinstance(each, FillExample))

    return replace(DATA, tree=tree, validation=newer(DATA.validation), test=newer(DATA.test))


def test_code_of_other_files_is_shown_as_it_was_before_the_held_out_lines(tmp_path: Path) -> None:
    own = OwnRepository(tmp_path / "own")
    data = in_history(own)
    with selector_of_commit(own.root, data.tree) as selector:
        assert selector.index.paths == tuple(f"helpers/{word}.py" for word in sorted(WORDS))
        hole = next(each for each in data.test if isinstance(each, FillExample) and each.path == "alpha.py")
        (chunk, *_) = selector.select(hole, SelectionLimits.of_tokens(300))
    assert chunk == ContextChunk("helpers/alpha.py", "def alpha_helper(alpha, number): ...")


def test_the_gate_tries_code_of_other_files_and_what_won_is_shown_it(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = OwnRepository(tmp_path / "own")
    data = in_history(own)
    asked = replace(request(own.root, job={"max_steps": 2}), load_data=lambda _tell: data)
    tried = only(events(asked, installation), GateVerdict)
    assert isinstance(tried, GateVerdict)
    assert [(each.scale > 0, each.tokens, each.average.holes) for each in tried.with_context] == [
        (False, 300, 6),
        (True, 300, 6),
    ]
    card = (installation.folder("own") / "README.md").read_text(encoding="utf-8")
    assert f"| {installation.entry.id}, 300 tokens of other files |" in card

    def won(*arguments: Any) -> tuple[GateVerdict, ...]:
        """As if the holes had said so: a tiny random model gains nothing from code of other files."""
        (found,) = judge_adapter(*arguments)
        return (msgspec.structs.replace(found, activate=not alone, context_alone=alone, context=300),)

    def shown() -> int:
        return installation.registry.context_tokens(str(own.root), installation.settings)

    served = what_serves(installation.registry, str(own.root), installation.base.sha256)
    monkeypatch.setattr("peft_tuning.judging.judge_adapter", won)
    alone = True
    events(replace(asked, update=True), installation)
    assert shown() == 300
    assert what_serves(installation.registry, str(own.root), installation.base.sha256) == served, "as before"
    installation.registry.show_context(0, own.root)
    alone = False
    events(replace(asked, update=True), installation)
    assert shown() == 300
    assert what_serves(installation.registry, str(own.root), installation.base.sha256) is not None


def test_where_a_setting_says_how_much_of_other_files_is_shown_nothing_else_is_tried(
    installation: Installation, tmp_path: Path
) -> None:
    own = OwnRepository(tmp_path / "own")
    data = in_history(own)
    settings = msgspec.structs.replace(installation.settings, repository_context=200)
    asked = replace(request(own.root, job={"max_steps": 2}), load_data=lambda _tell: data)
    verdict = only(events(asked, replace(installation, settings=settings)), GateVerdict)
    assert isinstance(verdict, GateVerdict)
    assert (verdict.with_context, verdict.served_context, verdict.context) == ((), 200, 200)


def test_what_was_learned_is_noted_for_the_next_run_that_begins_with_it(
    installation: Installation, tmp_path: Path
) -> None:
    events(request(tmp_path, job={"limit": 6, "max_steps": 2}), installation)
    assert documents_learned(installation.paths, installation.registry.get("own").digest) == frozenset(), "4 of 6 seen"
    told = events(request(tmp_path, update=True, job={"limit": 6}), installation)
    first = made(told, installation)
    assert isinstance(told[-1], AdapterRegistered) and told[-1].unlearned == 34
    own = {document_digest(each) for each in DATA.train[:6] if isinstance(each, FillExample)}
    assert documents_learned(installation.paths, first.digest) == own
    assert documents_learned(installation.paths, "0" * 64) == frozenset()
    too_long = replace(DATA.train[10], middle="x" * 2_000)
    rest = replace(DATA, train=(DATA.train[6], too_long, *DATA.train[7:10]))
    again = request(tmp_path, job={"options": MethodOptions()}, start=begin(installation, first), update=True)
    second = made(events(replace(again, load_data=lambda _tell: rest), installation), installation)
    assert len(documents_learned(installation.paths, second.digest)) == 11, "one of them cannot be learned"
    seen = examples_seen(installation.paths, second.digest)
    assert is_seen(DATA.train[0], seen) and not is_seen(DATA.train[12], seen), "an evaluation knows what was learned"
    begun = begin(installation, second)
    assert _seen(installation, tmp_path, begun) == seen, "and so does the next run that begins with it"
    installation.registry.use(second.digest, Task.FILL)
    assert _seen(installation, None, None) == seen, "or that is compared with it"
    installation.registry.use("base", Task.FILL)
    assert _seen(installation, None, None) == frozenset()
    noted = installation.paths.data / "learned" / f"{second.digest}.json"
    assert noted.stat().st_mode & 0o077 == 0
    noted.write_bytes(b"{")
    assert documents_learned(installation.paths, second.digest) == frozenset()


def test_the_data_of_a_run_are_split_as_evaluate_splits_them(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    rows = ({"intent": f"add {number} to x", "code": f"x + {number}"} for number in range(40))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    name, load = _source(
        DataLocations(cache=tmp_path), str(file), None, [], [], None, _RepositorySizes(0, 0), edits=False
    )
    assert name == "mine"
    data, evaluated = load(lambda _event: None), catalogue.load(str(file), DataLocations(cache=tmp_path))
    assert (data.train, data.validation, data.test) == (evaluated.train, evaluated.validation, evaluated.test)
    assert data.test and "a tenth each is validation and test" in data.provenance


def test_a_run_begins_with_exactly_what_serves_at_its_scale(installation: Installation, tmp_path: Path) -> None:
    events(replace(request(tmp_path), activate=False), installation)
    manifest: Manifest = msgspec.structs.replace(installation.registry.get("own"), scale=0.5)
    family = family_of(installation.entry.family)
    start = starting_point(installation.registry, manifest, family)
    job = with_start(TuneJob(method="lora"), start)
    assert (job.options.rank, job.options.alpha) == (4, start.alpha)

    ids = torch.tensor([[1, 2, 3, 4, 5]])
    path = installation.base.path
    made = prepare.prepare(
        job, load_model(path, Precision.FLOAT32), DATA, installation.entry.prompt_formats, start=start
    )
    begun = made.model.eval()(input_ids=ids).logits
    scorer = AnswerScorer(served := load_model(path, Precision.FLOAT32))
    scorer._adapters.activate(start.lease)
    torch.testing.assert_close(begun, served.model(input_ids=ids).logits)
    assert not torch.allclose(begun, load_model(path, Precision.FLOAT32).model(input_ids=ids).logits)
    assert all(each.dtype == torch.float32 for each in made.model.parameters() if each.requires_grad)


def test_what_cannot_be_begun_with_is_refused_with_a_reason(installation: Installation, tmp_path: Path) -> None:
    events(replace(request(tmp_path), activate=False), installation)
    manifest = installation.registry.get("own")
    start = starting_point(installation.registry, manifest, family_of(installation.entry.family))
    with pytest.raises(InvalidInput, match="its rank, 4"):
        with_start(TuneJob(method="lora", options=MethodOptions(rank=8)), start)
    with pytest.raises(InvalidInput, match="only with a LoRA of one rank"):
        other = msgspec.structs.replace(manifest, targets=("q_proj",))
        starting_point(installation.registry, other, family_of(installation.entry.family))
    wider = prepare.prepare(
        TuneJob(method="lora", options=MethodOptions(rank=8)),
        load_model(installation.base.path, Precision.FLOAT32),
        DATA,
        installation.entry.prompt_formats,
    )
    with pytest.raises(InvalidInput, match="does not fit this base"):
        load_start(wider.model, start)


def prepared(installation: Installation, **changes: object) -> prepare.PreparedRun:
    job = TuneJob(method="lora", **{**short_run("lora"), "threads": 1, **changes})  # type: ignore[arg-type]
    base = load_model(installation.base.path, Precision.FLOAT32)
    return prepare.prepare(job, base, DATA, installation.entry.prompt_formats)


def test_a_budget_takes_the_beginning_of_the_examples_or_several_passes(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prepared(installation)
    tokens = sum(map(len, made.train.examples))

    class Clock:
        """One second for each token."""

        def __init__(self, run: prepare.PreparedRun) -> None:
            self.run = run

        def step(self, batch: list[object]) -> float:
            return float(sum(map(len, batch)))  # type: ignore[arg-type]

        def evaluation(self, examples: list[object]) -> float:
            return 10.0

    monkeypatch.setattr(budget, "StepTimer", Clock)
    half = fit(made, tokens / 2 + 10)
    assert half.train.examples == made.train.examples[: len(half.train.examples)]
    assert sum(map(len, half.train.examples)) <= tokens / 2 < sum(map(len, half.train.examples)) + 400
    assert half.train.dropped[LEFT_OUT] == 40 - len(half.train.examples)
    assert half.schedule.steps == math.ceil(len(half.train.examples) / 2)
    assert (half.identity.limit, half.identity.epochs) == (len(half.train.examples), 1)

    for times, epochs in ((1.1, 1), (2.2, 2), (50, MAX_EPOCHS)):
        whole = fit(made, times * (tokens + 10))
        assert (len(whole.train.examples), whole.schedule.epochs, whole.train.dropped) == (40, epochs, {})
    several = replace(made, identity=msgspec.structs.replace(made.identity, processes=2))
    with pytest.raises(InvalidInput, match="2 processes cannot share a time"):
        fit(several, 60)
    with pytest.raises(InvalidInput, match="too few to learn anything") as caught:
        fit(made, 20)
    assert "--budget" in caught.value.fix


def test_a_run_within_a_time_is_resumed_with_the_steps_that_it_began_with(
    installation: Installation, tmp_path: Path
) -> None:
    told = events(request(tmp_path, budget_s=60.0), installation)
    started = only(told, TrainingStarted)
    assert isinstance(started, TrainingStarted)
    assert any(isinstance(each, Loading) and each.what == "measuring a few steps" for each in told)
    begun = load_identity(installation.folder("own"))
    resumed = prepare.prepare(
        budget.as_begun(TuneJob(method="lora", **{**short_run("lora"), "threads": 1}), begun),  # type: ignore[arg-type]
        load_model(installation.base.path, Precision.FLOAT32),
        DATA,
        installation.entry.prompt_formats,
    )
    assert resumed.schedule.steps == started.steps
    assert installation.registry.resolve(Task.FILL, str(tmp_path / "a.py")) is not None


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("90s", 90), ("1.5h", 5400), (" 5 m", 300)])
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-5m", "1d", "5 minutes", "0m"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a time"):
        parse_duration(text)
