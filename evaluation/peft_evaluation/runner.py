"""Run an evaluation from start to end: items, strategies, answers, tests, scores, report.

All files are in one folder: ``run.json`` (what is evaluated), ``answers.jsonl`` (answers so far), ``runs.jsonl`` (test
results so far), and at the end the report. An interrupted evaluation can be continued at each step.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from peft_core.errors import Cancelled, InvalidInput, NotFound
from peft_core.status_types import TORCH
from peft_core.tasks import OnProgress
from peft_daemon.adapters.manifest import AdapterLease, Manifest
from peft_daemon.engines.base import EngineSpeed
from peft_daemon.engines.limits import context_tokens, prompt_tokens
from peft_evaluation import verification
from peft_evaluation.cluster import Cluster, connected
from peft_evaluation.generation import GenerationProgress, SampleResult, generate, generation_seconds
from peft_evaluation.journal import (
    EvaluationIdentity,
    Journal,
    StrategyIdentity,
    begin_run,
    read_identity,
    require_free,
)
from peft_evaluation.model import Decoding, Greedy, Model, ModelSpec, engine_of, open_model
from peft_evaluation.repo_tests.preparation import PACK, RepositoryTestsRequest, prepare
from peft_evaluation.report import store
from peft_evaluation.report.builder import assemble
from peft_evaluation.report.html import write_pages
from peft_evaluation.report.schema import Comparison, Report, StrategyResult
from peft_evaluation.sample import SampleSet
from peft_evaluation.sandbox.base import Sandbox, SandboxOutcome
from peft_evaluation.sandbox.sandboxes import choose_sandbox
from peft_evaluation.scorers.scoring import LiveScores, score
from peft_evaluation.strategies import Strategy, Sweep, choose_strategies
from peft_evaluation.verification import Verifications
from peft_tuning.events import Loading
from peft_tuning.installation import Installation
from peft_tuning.learned import examples_seen, is_seen


class SampleAnswered(msgspec.Struct, frozen=True, kw_only=True, tag="answered"):
    """Event: one more item was answered."""

    done: int
    of: int
    strategy: str
    item: str
    text: str
    """The first answer."""
    scores: dict[str, float]
    """Means of its strategy so far, by metric."""
    eta_s: float
    """Estimated seconds until all items are answered."""


class AnswerVerified(msgspec.Struct, frozen=True, kw_only=True, tag="ran"):
    """Event: one more answer was run against its item's tests."""

    done: int
    of: int
    item: str
    outcome: str
    passed: int
    """Answers so far that passed all their tests."""


class EvaluationReported(msgspec.Struct, frozen=True, kw_only=True, tag="reported"):
    """Event: the report was written. It is the last one."""

    folder: str
    strategies: tuple[StrategyResult, ...]
    comparisons: tuple[Comparison, ...]
    warnings: tuple[str, ...]


EvaluationEvent = Loading | SampleAnswered | AnswerVerified | EvaluationReported
OnEvaluationEvent = OnProgress[EvaluationEvent]


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """The options of an evaluation."""

    name: str
    load_items: Callable[[Callable[[str, int, int], None]], SampleSet]
    """Reads the items; called once, with a progress callback."""
    strategies: tuple[str, ...]
    sweep: Sweep = field(default_factory=Sweep)
    decoding: Decoding = field(default_factory=Greedy)
    limit: int | None = None
    """Evaluate only the first items, this many; None: all."""
    max_tokens: int | None = None
    """Longest answer, in tokens; None: as the data set says."""
    at_once: int | None = None
    """Items in progress at the same time; None: as many as the engine is fast with."""
    allow_unsandboxed: bool = False
    """Run answers without protection."""
    own_tests: RepositoryTestsRequest | None = None
    """Run the repository's own tests with each answer in place; only in a sandbox."""
    ray: str | None = None
    """Address of the Ray cluster whose nodes answer; None: this machine answers."""
    pass_at: tuple[int, ...] = ()
    """Values of k for which pass@k is required; without enough answers or tests the evaluation does not start."""
    resume: bool = False
    command: tuple[str, ...] = ()
    """The command line, for the report."""


def evaluation_folder(installation: Installation, name: str) -> Path:
    """Return the folder of an evaluation; raises InvalidInput for a name that cannot be a folder's."""
    if name != Path(name).name or name in ("", ".", ".."):
        raise InvalidInput(f"'{name}' cannot be an evaluation's name", fix="Give a word, e.g. `--name mine`")
    return installation.paths.data / store.EVALUATION.runs / name


def evaluate(request: EvaluateRequest, installation: Installation, on_progress: OnEvaluationEvent) -> Report:
    """Run the whole evaluation and return its report; raises what ``answer_all`` and ``run_all`` raise."""
    return report_answers(request, answer_all(request, installation, on_progress), installation, on_progress)


def report_answers(
    request: EvaluateRequest, items: SampleSet, installation: Installation, on_progress: OnEvaluationEvent
) -> Report:
    """Run the answers so far that have tests, score all, and write the report; raises what ``run_all`` raises."""
    folder = evaluation_folder(installation, request.name)
    identity = read_identity(folder)
    answered = list(Journal(folder / "answers.jsonl", SampleResult).read())
    runs, sandbox = run_all(request, items, answered, folder, on_progress)
    (folder / PACK).unlink(missing_ok=True)
    adapters = {
        name: found for name, asked in identity.strategies.items() if (found := _adapter_of(installation, asked))
    }
    report = assemble(
        identity,
        items,
        answered,
        score(items, answered, runs),
        adapters=adapters,
        seen={name: _count_seen(installation, items, adapter.digest) for name, adapter in adapters.items()},
        seconds=generation_seconds(answered),
        sandbox=sandbox,
    )
    store.write_report(folder, report)
    write_pages(folder, report)
    on_progress(
        EvaluationReported(
            folder=str(folder),
            strategies=report.strategies,
            comparisons=report.comparisons,
            warnings=report.warnings,
        )
    )
    return report


def answer_all(request: EvaluateRequest, installation: Installation, on_progress: OnEvaluationEvent) -> SampleSet:
    """Let every strategy answer every item, which is the first step, and return the items.

    Raises InvalidInput for invalid options, NotFound for a base model, adapter or data set that is not on this machine,
    Conflict if the folder holds another evaluation, Cancelled for Ctrl-C, and what the engine and ``connected`` raise.
    """
    folder = evaluation_folder(installation, request.name)
    if request.own_tests is not None:
        # Checked before the repository is read and its tests are run, which takes minutes.
        _sandbox_for_own_tests(request)
        require_free(folder, resume=request.resume)
    nodes = connected(request.ray, installation, _engine(request, installation)) if request.ray else nullcontext()
    with nodes as cluster:
        return _answer_all(request, installation, cluster, on_progress)


def load_samples(request: EvaluateRequest, on_progress: OnEvaluationEvent) -> SampleSet:
    """Return the items of an evaluation, without a repository's own tests."""
    items = request.load_items(lambda what, done, of: on_progress(Loading(what=what, done=done, of=of)))
    return items.first(request.limit) if request.limit else items


def _answer_all(
    request: EvaluateRequest, installation: Installation, cluster: Cluster | None, on_progress: OnEvaluationEvent
) -> SampleSet:
    path = installation.base.path
    installation.require_intact()
    items = load_samples(request, on_progress)
    _require_tests(request, items)
    if request.own_tests is not None:
        items = _with_own_tests(
            request, request.own_tests, items, evaluation_folder(installation, request.name), on_progress
        )
    elif _tested(items):
        # Fails now instead of after hours of answering.
        choose_sandbox(allow_unsandboxed=request.allow_unsandboxed)
    on_progress(Loading(what="choosing examples"))
    strategies = choose_strategies(
        request.strategies, request.sweep, items, lambda name: _adapter(installation, request, name)
    )
    identity = begin_run(
        evaluation_folder(installation, request.name),
        _identity(request, installation, items, strategies),
        resume=request.resume,
    )
    on_progress(Loading(what=f"loading {installation.entry.id}"))
    began, first = time.monotonic(), 0
    live = LiveScores(items)

    def report_answer(event: GenerationProgress) -> None:
        nonlocal first
        first = first or event.done - 1
        spent = time.monotonic() - began
        live.add(event.last)
        on_progress(
            SampleAnswered(
                done=event.done,
                of=event.of,
                strategy=event.last.strategy,
                item=event.last.item,
                text=event.last.given.texts[0] if event.last.given.texts else "",
                scores=live.means(event.last.strategy),
                eta_s=spent / (event.done - first) * (event.of - event.done),
            )
        )

    async def generate_missing() -> None:
        with Journal(evaluation_folder(installation, request.name) / "answers.jsonl", SampleResult) as journal:
            if _complete(journal, items, strategies):
                return
            for known in journal.read():
                live.add(known)
            async with _opened_model(request, installation, path, identity.max_tokens, cluster) as model:
                engine = _engine(request, installation)
                await generate(
                    items,
                    strategies,
                    model,
                    lease=lambda digest: _lease(installation, digest, engine),
                    journal=journal,
                    on_progress=report_answer,
                )

    try:
        asyncio.run(generate_missing())
    except KeyboardInterrupt:
        raise Cancelled("interrupted", fix="The same command with `--resume` continues where it stopped") from None
    return items


def run_all(
    request: EvaluateRequest,
    items: SampleSet,
    answered: Sequence[SampleResult],
    folder: Path,
    on_progress: OnEvaluationEvent,
) -> tuple[Verifications, str]:
    """Run the answers to items with tests, which is the second step; return the results and the sandbox's name.

    Raises NotFound if there is no sandbox, Conflict for a journal that cannot be read, Cancelled for Ctrl-C.
    """
    if not _tested(items):
        return {}, ""
    sandbox = choose_sandbox(allow_unsandboxed=request.allow_unsandboxed)
    with Journal(folder / "runs.jsonl", verification.Verification) as journal:
        passed = sum(ran.outcome is SandboxOutcome.PASSED for ran in journal.read())

        def report_run(event: verification.VerificationProgress) -> None:
            nonlocal passed
            passed += event.last.outcome is SandboxOutcome.PASSED
            on_progress(
                AnswerVerified(
                    done=event.done, of=event.of, item=event.last.item, outcome=event.last.outcome, passed=passed
                )
            )

        try:
            verification.verify(
                items,
                answered,
                sandbox,
                workers=os.cpu_count() or 1,
                journal=journal,
                on_progress=report_run,
            )
        except KeyboardInterrupt:
            raise Cancelled("interrupted", fix="The same command with `--resume` continues where it stopped") from None
        return {ran.key: ran for ran in journal.read()}, sandbox.name


def _sandbox_for_own_tests(request: EvaluateRequest) -> Sandbox:
    """Return a real sandbox.

    Raises NotFound if there is none, InvalidInput if the request is to do without one.
    """
    if request.allow_unsandboxed:
        raise InvalidInput(
            "your tests are run only in a sandbox",
            why="without one they would run in the repository itself, changed by the model",
            fix="Leave --allow-unsandboxed or --run-tests out",
        )
    return choose_sandbox(allow_unsandboxed=False)


def _with_own_tests(
    request: EvaluateRequest,
    own: RepositoryTestsRequest,
    items: SampleSet,
    folder: Path,
    on_progress: OnEvaluationEvent,
) -> SampleSet:
    """Return the items with the repository's tests, for those items that the tests can judge."""
    try:
        return prepare(
            items,
            own,
            _sandbox_for_own_tests(request),
            folder,
            workers=os.cpu_count() or 1,
            on_progress=lambda what, done, of: on_progress(Loading(what=what, done=done, of=of)),
        )
    except KeyboardInterrupt:
        raise Cancelled("interrupted", fix="The same command continues where it stopped") from None


def _tested(items: SampleSet) -> bool:
    return any(item.tests is not None for item in items.items)


def _require_tests(request: EvaluateRequest, items: SampleSet) -> None:
    if not request.pass_at:
        return
    answers = request.decoding.answers
    if (most := max(request.pass_at)) > answers:
        raise InvalidInput(
            f"pass@{most} of {answers} answers per item cannot be estimated",
            fix=f"Draw at least as many: `--samples {most}`",
        )
    if not _tested(items) and request.own_tests is None:
        raise InvalidInput(
            f"{items.name} has no tests, so there is no pass@k",
            fix="Leave --pass-at out, choose humaneval, mbpp or apps, or give --run-tests with --repo",
        )


def _complete(journal: Journal[SampleResult], items: SampleSet, strategies: tuple[Strategy, ...]) -> bool:
    known = {answered.key for answered in journal.read()}
    return all(
        (strategy.id, seed, item.id) in known
        for strategy in strategies
        for seed in strategy.seeds
        for item in items.items
    )


def _engine(request: EvaluateRequest, installation: Installation) -> str:
    return engine_of(installation, request.decoding)


def _adapter(installation: Installation, request: EvaluateRequest, name: str) -> Manifest:
    try:
        manifest = installation.registry.get(name)
    except NotFound as error:
        raise InvalidInput(error.what, why=error.why, fix=error.fix) from None
    manifest.require_base(installation.base.id, installation.base.sha256)
    manifest.require_engine(_engine(request, installation))
    return manifest


def _adapter_of(installation: Installation, asked: StrategyIdentity) -> Manifest | None:
    """Return the adapter of a strategy, perhaps of an earlier process; None if it has none or it was removed."""
    try:
        return installation.registry.get(asked.settings["adapter"].split()[-1])
    except (KeyError, NotFound):
        return None


def _count_seen(installation: Installation, items: SampleSet, digest: str) -> int:
    """Return how many of the items an adapter was tuned on, as far as its training recorded that."""
    seen = examples_seen(installation.paths, digest)
    return sum(is_seen(item.example, seen) for item in items.items) if seen else 0


def _lease(installation: Installation, digest: str, engine: str) -> AdapterLease:
    manifest = installation.registry.get(digest)
    return installation.registry.lease(manifest, manifest.scale, engine=engine)


def _identity(
    request: EvaluateRequest, installation: Installation, items: SampleSet, strategies: tuple[Strategy, ...]
) -> EvaluationIdentity:
    ids = installation.entry.prompt_formats
    return EvaluationIdentity(
        command=shlex.join(request.command),
        data=items.name,
        part=items.part,
        data_digest=items.digest,
        model=installation.entry.id,
        model_sha256=installation.base.sha256,
        engine=_engine(request, installation),
        precision=_precision(request, installation),
        formats=f"{ids.fill}, {ids.intent}",
        decoding=request.decoding.facts,
        max_tokens=request.max_tokens or items.max_tokens,
        context_tokens=_context(installation),
        prompt_tokens=_longest_prompt(installation),
        strategies={each.id: StrategyIdentity(each.seeds, dict(each.settings)) for each in strategies},
    )


def _precision(request: EvaluateRequest, installation: Installation) -> str:
    if _engine(request, installation) != TORCH:
        return ""
    from peft_daemon.engines.torch.base_model import serving_precision  # noqa: PLC0415  (seconds)

    return serving_precision(installation.settings.torch_precision).value


def _context(installation: Installation) -> int:
    return context_tokens(installation.settings, installation.entry.context_tokens)


def _longest_prompt(installation: Installation) -> int:
    """Return the longest prompt for a hole: that of completion while the engine's speed is not known."""
    return prompt_tokens(installation.settings, EngineSpeed())


def _opened_model(
    request: EvaluateRequest, installation: Installation, path: Path, max_tokens: int, cluster: Cluster | None
) -> AbstractAsyncContextManager[Model]:
    plan = ModelSpec(
        installation=installation,
        decoding=request.decoding,
        context_tokens=_context(installation),
        prompt_tokens=_longest_prompt(installation),
        max_tokens=max_tokens,
        at_once=request.at_once,
    )
    return open_model(plan, path) if cluster is None else cluster.opened(plan)
