"""What a study consists of: its TOML file as typed values, and the cells of its matrix.

A cell is one way of answering a data set with a model: a strategy, or an adapter that a method makes with one seed. A
row of the report is a cell without its seed.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta
from msgspec.structs import asdict, replace

from peft_core.api_types import Seed
from peft_core.errors import InvalidInput, NotFound
from peft_core.status_types import LLAMACPP
from peft_daemon.adapters.manifest import derive_name
from peft_evaluation.datasets import catalogue
from peft_evaluation.model import Beams, Decoding, Greedy, Samples
from peft_evaluation.retrieval import RETRIEVERS
from peft_evaluation.strategies import Sweep
from peft_tuning import methods
from peft_tuning.data.datasets import catalogue as tuning_catalogue
from peft_tuning.job import Positive, TuneJob
from peft_tuning.methods.base import MethodOptions

BASELINE = "zero-shot"
"""The strategy that all others are compared with. It is in every study."""
_PROMPTING = re.compile(
    r"(?:adapter\+)?(?:icl-(?P<examples>[1-9]\d{0,2})"
    rf"|rag-(?P<retriever>{'|'.join(RETRIEVERS)})-(?P<neighbours>[1-9]\d{{0,2}}))"
)
_PROMPTINGS = (
    f"zero-shot, icl-N, {', '.join(f'rag-{retriever}-N' for retriever in RETRIEVERS)}, "
    "and the same of every adapter, as adapter+icl-N"
)
_SERVED_BY_LLAMACPP = ("lora", "qlora-4bit", "qlora-8bit")
StudyName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}$")]


class StudyData(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of a study's data sets: which examples are used, and how its questions are answered."""

    name: str
    """A name of the catalogue, or the path of a FILE.jsonl, relative to the study's file."""
    path: str | None = None
    """Where its files are, relative to the study's file; None: where ``tune`` and ``evaluate`` look for them."""
    train: Positive | None = None
    """Training examples, the first ones, for tuning and for showing; None: all."""
    validation: Positive | None = None
    """Examples by which the best weights are chosen; None: all, at most as many as ``train``."""
    test: Positive | None = None
    """Questions, the first ones; None: all."""
    max_tokens: Positive | None = None
    """Longest answer; None: as the data set says."""
    beams: Annotated[int, Meta(ge=1, le=64)] | None = None
    samples: Positive | None = None
    """Answers per question, drawn at random; without it and ``beams`` decoding is greedy."""
    temperature: Annotated[float, Meta(gt=0, le=2)] = 0.6
    top_p: Annotated[float, Meta(gt=0, le=1)] = 0.95

    @property
    def label(self) -> str:
        """The word for it in reports and names."""
        return Path(self.name).stem if tuning_catalogue.is_file(self.name) else self.name

    @property
    def decoding(self) -> Decoding:
        """How answers are decoded."""
        if self.samples is not None:
            return Samples(self.samples, self.temperature, self.top_p)
        return Greedy() if self.beams is None else Beams(self.beams)


class StudyTuning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long and on which batches every method is tuned; None: as ``tune`` does it."""

    epochs: Positive | None = None
    max_steps: Positive | None = None
    batch_size: Positive | None = None
    batch_tokens: Annotated[int, Meta(ge=16)] | None = None
    evaluations_per_epoch: Positive | None = None
    patience: Positive | None = None
    threads: Positive | None = None
    niceness: Annotated[int, Meta(ge=0, le=19)] = 10


class StudyAnswering(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What answers the questions; the same for all cells of a model."""

    engine: Literal["torch", "llamacpp"] = "torch"
    at_once: Annotated[int, Meta(ge=1, le=512)] | None = None
    allow_unsandboxed: bool = False


class MethodSettings(MethodOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one method; None: its own."""

    learning_rate: Annotated[float, Meta(gt=0)] | None = None

    @property
    def options(self) -> MethodOptions:
        """The settings that the method itself takes."""
        return msgspec.convert({name: getattr(self, name) for name in MethodOptions.__struct_fields__}, MethodOptions)


class Study(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A study: every model is tuned with every method on every data set and with every seed, and evaluated there."""

    name: StudyName
    models: Annotated[tuple[str, ...], Meta(min_length=1)]
    datasets: Annotated[tuple[StudyData, ...], Meta(min_length=1)]
    methods: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    seeds: Annotated[tuple[Seed, ...], Meta(min_length=1)] = (42,)
    """Of tuning, and of the examples that ``icl`` draws."""
    tuning: StudyTuning = StudyTuning()
    options: dict[str, MethodSettings] = {}
    """By method."""
    answering: StudyAnswering = StudyAnswering()

    def cells(self) -> tuple[Cell, ...]:
        """Return the cells in the order in which they are worked on."""
        return tuple(cell for model in self.models for data in self.datasets for cell in self.cells_of(model, data))

    def cells_of(self, model: str, data: StudyData) -> Iterator[Cell]:
        """Yield the cells of one table: strategies, then every adapter, then every adapter with a strategy."""
        alone = dict.fromkeys((BASELINE, *(each for each in self.strategies if not each.startswith("adapter+"))))
        for prompting in alone:
            seeds = self.seeds if prompting.startswith("icl") else ()
            yield Cell(model=model, data=data, prompting=prompting, seeds=seeds)
        adapted = [each.removeprefix("adapter+") for each in self.strategies if each.startswith("adapter+")]
        for prompting in (BASELINE, *adapted):
            for method in self.methods:
                for seed in self.seeds:
                    yield Cell(model=model, data=data, prompting=prompting, method=method, seeds=(seed,))

    def label(self, cell: Cell) -> str:
        """Return what people read of a cell, with its model where there are several."""
        return cell.label if len(self.models) == 1 else f"{cell.label}, {cell.model}"

    def adapter(self, cell: Cell) -> str:
        """Return the name of the adapter that answers a cell with a method."""
        return derive_name(self.name, cell.model, f"{cell.data.label}-{cell.method}-{cell.seeds[0]}")

    def evaluation(self, model: str, data: StudyData) -> str:
        """Return the name of the evaluation that has the cells of one table."""
        return derive_name(self.name, model, data.label)

    def job(self, cell: Cell) -> TuneJob:
        """Return the settings of a cell's tuning."""
        own = self.options.get(str(cell.method), MethodSettings())
        given = {name: value for name, value in asdict(self.tuning).items() if value is not None}
        fixed: dict[str, object] = {
            "method": str(cell.method),
            "options": own.options,
            "learning_rate": own.learning_rate,
            "seed": cell.seeds[0],
            "limit": cell.data.train,
            "validation_limit": cell.data.validation,
        }
        return msgspec.convert({**given, **fixed}, TuneJob)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One way of answering one data set with one model."""

    model: str
    data: StudyData
    prompting: str = BASELINE
    """What the questions are shown with, as reports call it: ``zero-shot``, ``icl-3``, ``rag-bm25-3``."""
    method: str | None = None
    """The method whose adapter answers; None: the model itself does."""
    seeds: tuple[int, ...] = ()
    """One for a method, all of the study for examples that are drawn, else none."""

    @property
    def row(self) -> str:
        """Its row in the report: ``icl-3``, ``lora``, ``lora + rag-bm25-3``."""
        if self.method is None:
            return self.prompting
        return self.method if self.prompting == BASELINE else f"{self.method} + {self.prompting}"

    @property
    def id(self) -> str:
        """Unique in its study."""
        return "/".join((self.model, self.data.label, self.row, *map(str, self.seeds)))

    @property
    def label(self) -> str:
        """What people read: ``lora × conala, seed 42``."""
        seeds = ", ".join(map(str, self.seeds))
        plural = "s" if len(self.seeds) > 1 else ""
        return f"{self.row} × {self.data.label}" + (f", seed{plural} {seeds}" if seeds else "")

    def strategy(self, adapter: str) -> tuple[str, Sweep]:
        """Return the strategy as ``evaluate`` is asked for it, with its parameters; ``adapter`` answers."""
        found = _PROMPTING.fullmatch(self.prompting)
        kind = self.prompting.partition("-")[0] if found else BASELINE
        sweep = Sweep(
            examples=(int(found["examples"]),) if found and found["examples"] else Sweep.examples,
            neighbours=(int(found["neighbours"]),) if found and found["neighbours"] else Sweep.neighbours,
            retrievers=(found["retriever"],) if found and found["retriever"] else Sweep.retrievers,
            seeds=self.seeds or Sweep.seeds,
        )
        if self.method is None:
            return kind, sweep
        return (f"adapter:{adapter}" if kind == BASELINE else f"adapter+{kind}:{adapter}"), sweep

    def strategy_id(self, adapter: str) -> str:
        """Return the strategy's id in the evaluation."""
        if self.method is None:
            return self.prompting
        return f"adapter:{adapter}" if self.prompting == BASELINE else f"adapter+{self.prompting}:{adapter}"


_TABLES: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    (r"datasets\[(\d+|\.\.\.)\]", StudyData),
    ("tuning", StudyTuning),
    ("answering", StudyAnswering),
    (r"options\[\.\.\.\]", MethodSettings),
    ("", Study),
)
"""The tables of the file, by a pattern of their path in messages of msgspec."""


def read_study(file: Path) -> Study:
    """Read a study's file, with all paths in it made absolute.

    Raises NotFound without the file, and InvalidInput, which names file, key and allowed values, if it cannot be used.
    """
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(
            f"there is no study at {file}", why=str(error), fix="Give a TOML file; docs/study.md has an example"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{file} is not TOML", why=str(error), fix="Correct that line") from None
    try:
        study = msgspec.convert(raw, Study)
    except msgspec.ValidationError as error:
        raise _explained(file, error) from None
    here = file.absolute().parent
    study = replace(study, datasets=tuple(_absolute(each, here) for each in study.datasets))
    _Checks(file, study).run()
    return study


def _explained(file: Path, error: msgspec.ValidationError) -> InvalidInput:
    reason, _, where = str(error).partition(" - at `$")
    key = where.rstrip("`").lstrip(".")
    table = next(kind for pattern, kind in _TABLES if re.fullmatch(pattern, key) or not pattern)
    unknown = re.search(r"unknown field `(.+)`", reason)
    if unknown or "missing required field" in reason:
        return InvalidInput(
            f"{file}: {reason[0].lower()}{reason[1:]}" + (f" in `{key}`" if key else ""),
            fix=f"The keys there are {', '.join(table.__struct_fields__)}",
        )
    return InvalidInput(f"{file}: `{key}` cannot be used", why=reason, fix=_allowed(key))


def _allowed(key: str) -> str:
    for pattern, kind in _TABLES:
        prefix, _, name = key.rpartition(".")
        if re.fullmatch(pattern, prefix) and name in kind.__struct_fields__:
            found = next(field.type for field in msgspec.structs.fields(kind) if field.name == name)
            if values := [repr(value) for value in get_args(found) if isinstance(value, str)]:
                return f"Allowed are {', '.join(values)}"
    return "See docs/study.md"


def _absolute(data: StudyData, folder: Path) -> StudyData:
    def resolved(path: str) -> str:
        return str(folder / Path(path).expanduser())

    return replace(
        data,
        name=resolved(data.name) if tuning_catalogue.is_file(data.name) else data.name,
        path=None if data.path is None else resolved(data.path),
    )


class _Checks:
    """The rules that types cannot express; each raises InvalidInput."""

    def __init__(self, file: Path, study: Study) -> None:
        self._file, self._study = file, study

    def run(self) -> None:
        study = self._study
        labels = [data.label for data in study.datasets]
        for key, values in (("models", study.models), ("methods", study.methods), ("strategies", study.strategies)):
            self._require_once(key, values)
        self._require_once("seeds", study.seeds)
        self._require_once("datasets", labels)
        tuned = [method.id for method in methods.METHODS.values() if method.makes_adapter]
        for method in (*study.methods, *study.options):
            key = "methods" if method in study.methods else "options"
            self._require(
                method in tuned, key, f"no method '{method}' makes an adapter", f"Allowed are {', '.join(tuned)}"
            )
        for name in study.options:
            self._require(name in study.methods, "options", f"'{name}' is not among `methods`", "Add it there")
        for strategy in study.strategies:
            found = strategy == BASELINE or _PROMPTING.fullmatch(strategy)
            self._require(bool(found), "strategies", f"there is no strategy '{strategy}'", f"Allowed are {_PROMPTINGS}")
        for data in study.datasets:
            self._require_data(data)
        self._require_engine()
        names = [study.adapter(cell) for cell in study.cells() if cell.method and cell.prompting == BASELINE]
        names += [study.evaluation(model, data) for model in study.models for data in study.datasets]
        self._require(len(set(names)) == len(names), "name", "adapters of two cells would have one name", "Shorten it")

    def _require_data(self, data: StudyData) -> None:
        known = [name for name in catalogue.LOADERS if not self._study.methods or name in _TUNED]
        found = tuning_catalogue.is_file(data.name) or data.name in known
        and_tune = " and tune" if self._study.methods else ""
        self._require(
            found,
            "datasets",
            f"there is no data set '{data.name}' to evaluate{and_tune} on",
            f"Allowed are {', '.join(known)}, or the path of a FILE.jsonl",
        )
        self._require(
            data.beams is None or data.samples is None,
            "datasets",
            "either `samples` or `beams`",
            "Leave one of them out",
        )

    def _require_engine(self) -> None:
        study = self._study
        if study.answering.engine != LLAMACPP:
            return
        unserved = [
            method
            for method in study.methods
            if method not in _SERVED_BY_LLAMACPP or study.options.get(method, MethodSettings()).dora
        ]
        self._require(
            not unserved,
            "answering.engine",
            f"llama.cpp serves no adapters of {', '.join(unserved)}",
            "Choose 'torch': all cells of a model are answered by the same engine",
        )
        self._require(
            all(data.beams is None for data in study.datasets),
            "answering.engine",
            "llama.cpp has no beam search",
            "Choose 'torch', or leave `beams` out",
        )

    def _require_once(self, key: str, values: Sequence[object]) -> None:
        twice = [str(value) for value, count in Counter(values).items() if count > 1]
        self._require(not twice, key, f"{', '.join(twice)} is there twice", "Give each once")

    def _require(self, holds: bool, key: str, why: str, fix: str) -> None:
        if not holds:
            raise InvalidInput(f"{self._file}: `{key}` cannot be used", why=why, fix=fix)


_TUNED = tuple(entry.id for entry in tuning_catalogue.ENTRIES)
