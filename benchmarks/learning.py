"""What a recipe for learning a repository gains in the same time: an ablation on held-out lines of its newest commits.

    python benchmarks/learning.py --repo FOLDER --minutes 10 --recipe default --recipe answers-only --out learning.json

Each recipe trains for so many minutes, from the adapter that the package ships or from new weights, and then fills the
same holes, judged by likelihood. What is in the output file is not measured again.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from torch import nn

from peft_core.paths import Paths
from peft_core.settings import resolve
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.adapters.shipped_adapters import update_shipped_adapters
from peft_daemon.context.selection import SelectionLimits
from peft_daemon.engines.torch.base_model import LoadedBase, Precision, load_model
from peft_daemon.engines.torch.families import family_of
from peft_daemon.engines.waiting import set_wait_policy
from peft_tuning import budget, methods, prepare
from peft_tuning.data.examples import DataSet, Example, FillExample
from peft_tuning.data.repository.chunks import CONTEXT_TOKENS, selector_of_commit
from peft_tuning.data.repository.documents import learning_data_set
from peft_tuning.encode import EncodedExample, EncodedExamples, ExampleTokenizer, encode_examples
from peft_tuning.gate import average_scores, improvement
from peft_tuning.installation import Installation
from peft_tuning.job import TuneJob, short_run
from peft_tuning.judging import LIMITS
from peft_tuning.likelihood import AnswerLikelihood, AnswerScorer
from peft_tuning.methods.base import MethodOptions
from peft_tuning.mixture import mix
from peft_tuning.start import StartingPoint, starting_point, what_serves, with_start
from peft_tuning.trainer import ADAPTER, train

RANK = 8


@dataclass(frozen=True)
class Recipe:
    """How a run differs from the default one."""

    from_shipped: bool = True
    precision: Precision | None = None
    """None: what the method takes on this processor."""
    dropout: float = 0.0
    job: tuple[tuple[str, object], ...] = ()
    mixtures: tuple[float, ...] = ()
    """Also judged: so far on the way from what the run began with to what it made."""
    data: Callable[[DataSet, Path], DataSet] = lambda data, _repository: data
    upper: float = 1.0
    """Share of the layers that are trained, the last ones; the others keep what they began with."""


def answers_only(data: DataSet, _repository: Path) -> DataSet:
    """Return the data with a loss on the answers alone."""
    train = tuple(replace(each, learn_all=False) if isinstance(each, FillExample) else each for each in data.train)
    return replace(data, train=train)


def shown_context(
    examples: Sequence[Example],
    data: DataSet,
    repository: Path,
    limits: SelectionLimits | None = None,
) -> tuple[Example, ...]:
    """Return the examples with chunks of the tree as it was before the commits that are held out.

    Without ``limits``, as many as completion shows where it does.
    """
    limits = limits or SelectionLimits.of_tokens(CONTEXT_TOKENS)
    with selector_of_commit(repository, data.tree or "HEAD") as selector:
        return tuple(
            replace(each, context=selector.select(each, limits)) if isinstance(each, FillExample) else each
            for each in examples
        )


def with_context(data: DataSet, repository: Path) -> DataSet:
    """Return the data with code of other files above each document."""
    return replace(data, train=shown_context(data.train, data, repository))


def train_upper(model: nn.Module, share: float) -> None:
    """Keep the first layers as they are."""
    layer = re.compile(r"\.layers\.(\d+)\.")
    numbers = {name: int(found[1]) for name, _ in model.named_parameters() if (found := layer.search(name))}
    first = round((max(numbers.values()) + 1) * (1 - share))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and numbers.get(name, first) < first:
            parameter.requires_grad_(False)


RECIPES = {
    "default": Recipe(mixtures=(0.5, 0.75)),
    "answers-only": Recipe(data=answers_only),
    "new-weights": Recipe(from_shipped=False),
    "float32": Recipe(precision=Precision.FLOAT32),
    "dropout": Recipe(dropout=0.05),
    "batch-8": Recipe(job=(("batch_size", 8),)),
    "rate-2e-4": Recipe(job=(("learning_rate", 2e-4),)),
    "rate-8e-4": Recipe(job=(("learning_rate", 8e-4),)),
    "upper-half": Recipe(upper=0.5),
    "upper-quarter": Recipe(upper=0.25),
    "with-context": Recipe(data=with_context),
    "former": Recipe(
        from_shipped=False,
        precision=Precision.FLOAT32,
        dropout=0.05,
        job=(("batch_size", 8), ("learning_rate", 3e-4)),
        data=answers_only,
    ),
}
"""``former``: as the command did before it had a time, but with the same documents."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What one recipe reached."""

    recipe: str
    holes: int
    exact: float
    nats: float
    p_exact: float = 1.0
    """McNemar, one-sided, against what the run began with (``served``)."""
    p_nats: float = 1.0
    steps: int = 0
    tokens: int = 0
    """Tokens read in training."""
    loss_tokens: int = 0
    seconds: float = 0.0


def row(recipe: str, scores: tuple[AnswerLikelihood, ...], served: tuple[AnswerLikelihood, ...], **more: Any) -> Row:
    """Return the row of one recipe's scores, compared with those of what serves."""
    average, (p_nats, p_exact) = average_scores(scores), improvement(served, scores)
    return Row(
        recipe=recipe,
        holes=average.holes,
        exact=average.exact,
        nats=average.nats,
        p_exact=p_exact,
        p_nats=p_nats,
        **more,
    )


@dataclass(frozen=True)
class Ground:
    """What recipes are compared on: a repository, the models, and what serves there."""

    installation: Installation
    data: DataSet
    scorer: AnswerScorer
    start: StartingPoint | None
    """What serves there by default: the shipped adapter."""
    base: LoadedBase

    @classmethod
    def of(cls, repository: Path, *, holes: int) -> Ground:
        """Read the repository and load the model."""
        paths = Paths.from_environment()
        installation = Installation(settings=resolve(user_file=paths.config_file).settings, paths=paths)
        update_shipped_adapters(installation.settings, paths)
        entry = installation.entry
        shipped = what_serves(installation.registry, str(repository.resolve()), entry.sha256)
        base = load_model(installation.base.path, methods.get("lora").precision_on("cpu"))
        return cls(
            installation,
            learning_data_set(repository, seed=42, max_documents=2000, held_out_holes=holes),
            AnswerScorer(base),
            starting_point(installation.registry, shipped, family_of(entry.family)) if shipped else None,
            base,
        )

    @property
    def served(self) -> AdapterLease | None:
        """What serves there now."""
        return self.start.lease if self.start else None

    def encoding(self, holes: Sequence[Example]) -> EncodedExamples:
        """Encode holes with the prompts of the gate."""
        formats = self.installation.entry.prompt_formats
        return encode_examples(holes, formats, ExampleTokenizer.of(self.base), LIMITS)

    def encoded(self, holes: Sequence[Example]) -> tuple[EncodedExample, ...]:
        """Return the holes that can be encoded with the prompts of the gate."""
        return self.encoding(holes).examples


def main() -> None:
    """Measure the recipes that the output file does not have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--recipe", action="append", choices=RECIPES)
    parser.add_argument("--holes", type=int, default=96, help="of each of the two held-out parts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    set_wait_policy("auto", threads=options.threads)

    rows = msgspec.json.decode(options.out.read_bytes(), type=list[Row]) if options.out.exists() else []
    ground = Ground.of(options.repo, holes=options.holes)
    data, scorer, entry, start = ground.data, ground.scorer, ground.installation.entry, ground.start
    print(data.provenance, flush=True)
    method, path = methods.get("lora"), ground.installation.base.path
    holes = ground.encoded((*data.test, *data.validation))
    served = scorer.score(holes, ground.served)

    def keep(made: Row) -> None:
        rows.append(made)
        options.out.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1))
        print(made, flush=True)

    if not rows:
        keep(row("base", scorer.score(holes, None), served))
        keep(row("served", served, served))
    for name in options.recipe or ["default"]:
        if name in {each.recipe for each in rows}:
            continue
        recipe = RECIPES[name]
        begun = start if recipe.from_shipped else None
        own = MethodOptions(rank=None if begun else RANK, dropout=recipe.dropout)
        settings: dict[str, Any] = {**short_run("lora"), **dict(recipe.job)}
        job = TuneJob(method="lora", options=own, threads=options.threads, **settings)
        job = with_start(job, begun) if begun else job
        run = prepare.prepare(
            job,
            load_model(path, recipe.precision or method.precision_on("cpu")),
            # Nothing is chosen by the validation part here, so it can be judged by too.
            replace(recipe.data(data, options.repo), validation=()),
            entry.prompt_formats,
            start=begun,
        )
        train_upper(run.model, recipe.upper)
        run = budget.fit(run, options.minutes * 60)
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            result = train(run, Path(folder), lambda _event: None)
            seconds = time.monotonic() - began
            scores = scorer.score(holes, AdapterLease(name, Path(folder) / ADAPTER))
            if recipe.data is with_context:
                more = ground.encoded(shown_context((*data.test, *data.validation), data, options.repo))
                if "served, shown context" not in {each.recipe for each in rows}:
                    keep(row("served, shown context", scorer.score(more, ground.served), served))
                keep(row(f"{name}, shown it", scorer.score(more, AdapterLease(name, Path(folder) / ADAPTER)), served))
            for share in recipe.mixtures if begun else ():
                assert begun is not None
                mix(begun.lease, Path(folder) / ADAPTER, share, mixed := Path(folder) / f"{share:g}")
                between = scorer.score(holes, AdapterLease(f"{name}-{share:g}", mixed))
                keep(row(f"{name}, {share:g} of the way", between, served))
        keep(
            row(
                name,
                scores,
                served,
                steps=result.steps,
                tokens=run.schedule.epochs * run.train.tokens,
                loss_tokens=run.schedule.epochs * sum(each.loss_tokens for each in run.train.examples),
                seconds=round(seconds, 1),
            )
        )


if __name__ == "__main__":
    main()
