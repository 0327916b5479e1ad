"""Run the benchmark of next edits: make scenarios, ask every policy in each, compute figures, write the report.

All files are in one folder: ``run.json`` (what is asked), ``trials.jsonl`` (the results so far, a line for each policy
and scenario), and at the end the report. An interrupted run can be continued. The policies take turns in each scenario,
each time in another order, so that a machine that is slow for a while is slow for all.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from peft_core import files
from peft_core.code.edits import join_lines
from peft_core.errors import Cancelled, Conflict, InvalidInput
from peft_core.tasks import OnProgress
from peft_evaluation.edit_benchmark.daemons import EditDaemons
from peft_evaluation.edit_benchmark.figures import compare_policies, figures_of, places_found
from peft_evaluation.edit_benchmark.policies import EditAnswer, EditPolicy, choose_edit_policies
from peft_evaluation.edit_benchmark.report import write_report
from peft_evaluation.edit_benchmark.results import (
    EditBenchReport,
    EditFigures,
    EditTrial,
    JournaledTrial,
    ScenarioFacts,
    SuggestedText,
)
from peft_evaluation.edit_benchmark.scenarios import EditAmount, EditScenario, digest_of, lines_between, make_scenarios
from peft_evaluation.edit_benchmark.scores import is_distant, place_found, scores
from peft_evaluation.journal import Journal
from peft_evaluation.typing_benchmark.figures import local_machine
from peft_tuning.events import Loading
from peft_tuning.installation import Installation

RUN, JOURNAL = "run.json", "trials.jsonl"
STALE = "other_lines"
"""The reason for suggesting nothing where a suggestion is for other lines than the document has: no editor shows it."""
REFUSED = "refused"
"""The same where the daemon refuses the request."""
LEAST_REPOSITORIES, LEAST_LANGUAGES = 8, 4
_LIBRARIES = ("peft-daemon", "xllamacpp")
_QUICK = "A quick run has too few scenarios for more than a look: its intervals say how wide."
_MIX = (
    "Half of the scenarios have an answer, in equal parts by its distance; half have none, in equal parts by the "
    "reason. Somebody who works meets other shares."
)


class Asking(msgspec.Struct, frozen=True, kw_only=True, tag="asking"):
    """Event: progress of a run."""

    done: int
    """Number of trials done."""
    of: int
    """Number of all trials."""
    what: str
    exact: dict[str, float]
    """Share of answers found so far, by policy ..."""
    quiet: dict[str, float]
    """... and of silence kept."""
    eta_s: float
    """Estimated seconds left."""


class EditBenchReported(msgspec.Struct, frozen=True, kw_only=True, tag="reported"):
    """Event: the report was written. It is the last one."""

    folder: str
    report: EditBenchReport


EditBenchEvent = Loading | Asking | EditBenchReported
TrialKey = tuple[str, str]
"""Name of the policy and id of the scenario."""


class EditBenchIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``run.json``: what has to be the same to continue a run. Policies may be added later."""

    seed: int
    quick: bool
    scenarios_sha256: str
    model: str
    model_sha256: str


@dataclass(frozen=True, kw_only=True)
class EditBenchRequest:
    """The options of a run."""

    folder: Path
    policies: tuple[EditPolicy, ...]
    amount: EditAmount
    sources: tuple[Path, ...]
    quick: bool
    seed: int = 0
    resume: bool = False
    command: str = ""


def bench_edits(
    request: EditBenchRequest, installation: Installation, on_progress: OnProgress[EditBenchEvent]
) -> EditBenchReport:
    """Run the benchmark and write its report.

    Raises Conflict if the folder holds a run and ``resume`` is not set, or if that run has other options; InvalidInput
    for sources without a history; NotFound without the model; Cancelled for Ctrl-C; and what a daemon answers.
    """
    base = installation.base
    installation.require_intact()
    _require_free(request)
    on_progress(Loading(what="reading histories"))
    scenarios = make_scenarios(request.sources, request.amount, request.seed)
    identity = EditBenchIdentity(
        seed=request.seed,
        quick=request.quick,
        scenarios_sha256=digest_of(scenarios),
        model=base.id,
        model_sha256=base.sha256,
    )
    _begin(request, identity)
    began = time.monotonic()
    with Journal(request.folder / JOURNAL, JournaledTrial) as journal:
        trials = _Trials(journal, scenarios, request.policies, on_progress)
        try:
            asyncio.run(trials.run(installation))
        except KeyboardInterrupt:
            raise Cancelled(
                f"interrupted after {len(trials.done)} trials, which are kept",
                fix=f"Continue with the same command and `--resume` and `--output {request.folder}`",
            ) from None
    report = _report(request, identity, scenarios, tuple(trials.done.values()), round(time.monotonic() - began, 1))
    write_report(request.folder, report)
    on_progress(EditBenchReported(folder=str(request.folder), report=report))
    return report


class _Trials:
    """The trials of a run: those in its journal, and those that are left."""

    def __init__(
        self,
        journal: Journal[JournaledTrial],
        scenarios: Sequence[EditScenario],
        policies: Sequence[EditPolicy],
        on_progress: OnProgress[EditBenchEvent],
    ) -> None:
        self._journal, self._on_progress = journal, on_progress
        self.done: dict[TrialKey, EditTrial] = {}
        for each in journal.read():
            self.done[each.trial.policy, each.trial.scenario] = each.trial
        jobs = [
            (policies[(turn + number) % len(policies)], scenario)
            for number, scenario in enumerate(scenarios)
            for turn in range(len(policies))
        ]
        self._left = [(policy, scenario) for policy, scenario in jobs if (policy.name, scenario.id) not in self.done]
        self._of = len(jobs)
        self._asked: set[TrialKey] = set()
        questions = {policy.name: policy.question for policy in policies}
        for name, scenario_id in self.done:
            self._asked.add((questions.get(name) or name, scenario_id))

    async def run(self, installation: Installation) -> None:
        """Do what is left, one after the other."""
        async with EditDaemons(installation) as daemons:
            began, count = time.monotonic(), len(self._left)
            for number, (policy, scenario) in enumerate(self._left):
                passed = time.monotonic() - began
                self._report(policy, scenario, passed / number * (count - number) if number else 0.0)
                answer = EditAnswer()
                if policy.question:
                    client = await daemons.client(policy.model)
                    try:
                        answer = await policy.ask(client, scenario)
                    except InvalidInput as error:  # e.g. longer than the model's context: an editor shows nothing
                        answer = EditAnswer(silence=REFUSED, detail=str(error))
                self._keep(policy, scenario, answer)

    def _keep(self, policy: EditPolicy, scenario: EditScenario, answer: EditAnswer) -> None:
        change, silence = answer.change, answer.silence
        try:
            found = scores(scenario, change)
        except ValueError:
            change, silence = None, STALE
            found = scores(scenario, None)
        timings = answer.timings
        question = (policy.question, scenario.id)
        changed = None if change is None else change.trimmed()
        trial = EditTrial(
            policy=policy.name,
            scenario=scenario.id,
            scores=found,
            silence=silence,
            away=None if changed is None else lines_between(changed, scenario.line),
            distant=None if changed is None else is_distant(scenario, changed),
            size=None if changed is None else max(len(changed.old), len(changed.new)),
            confidence=answer.confidence,
            tokens=answer.tokens,
            decoded=timings.decode_tokens,
            mean_log_probability=answer.mean_log_probability,
            prompt_tokens=timings.prompt_tokens,
            prompt_reused=timings.prompt_reused,
            latency_ms=round(answer.latency_ms, 1),
            repeated=bool(policy.question) and question in self._asked,
        )
        said = None
        if change is not None:
            said = SuggestedText(change.start, join_lines(change.old), join_lines(change.new), answer.why)
        self._journal.append(JournaledTrial(trial=trial, suggested=said, detail=answer.detail))
        self.done[policy.name, scenario.id] = trial
        self._asked.add(question)

    def _report(self, policy: EditPolicy, scenario: EditScenario, eta_s: float) -> None:
        exact: dict[str, list[bool]] = {}
        quiet: dict[str, list[bool]] = {}
        for each in self.done.values():
            if each.scores.quiet is None:
                exact.setdefault(each.policy, []).append(each.scores.exact)
            else:
                quiet.setdefault(each.policy, []).append(each.scores.quiet)
        self._on_progress(
            Asking(
                done=len(self.done),
                of=self._of,
                what=f"{policy.name}: {scenario.id}",
                exact={name: round(sum(some) / len(some), 3) for name, some in exact.items()},
                quiet={name: round(sum(some) / len(some), 3) for name, some in quiet.items()},
                eta_s=round(eta_s, 1),
            )
        )


def facts_of(scenario: EditScenario) -> ScenarioFacts:
    """Return a scenario without its texts."""
    return ScenarioFacts(
        id=scenario.id,
        repository=scenario.repository,
        commit=scenario.commit,
        path=scenario.path,
        language=scenario.language,
        kind=scenario.kind,
        distance=scenario.distance,
        lines=len(scenario.lines),
        edits=len(scenario.history),
        place_found=place_found(scenario),
    )


def _report(
    request: EditBenchRequest,
    identity: EditBenchIdentity,
    scenarios: Sequence[EditScenario],
    trials: Sequence[EditTrial],
    seconds: float,
) -> EditBenchReport:
    facts = {scenario.id: facts_of(scenario) for scenario in scenarios}
    # Policies of earlier runs in this folder stay in the report.
    names = dict.fromkeys((*(each.name for each in request.policies), *(each.policy for each in trials)))
    policies = {}
    for policy in choose_edit_policies(tuple(names)):
        own = [each for each in trials if each.policy == policy.name]
        policies[policy.name] = figures_of(policy.what, own, facts)
    return EditBenchReport(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=request.command,
        seconds=seconds,
        seed=request.seed,
        quick=request.quick,
        model=identity.model,
        model_sha256=identity.model_sha256,
        scenarios_sha256=identity.scenarios_sha256,
        machine=local_machine(),
        versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
        edit_policies=policies,
        comparisons=compare_policies(tuple(policies), trials, facts),
        places_found=places_found(facts.values()),
        scenarios=tuple(facts.values()),
        trials=tuple(trials),
        notes=(*_notes(request, list(facts.values())), *_partial(policies, len(facts))),
    )


def _notes(request: EditBenchRequest, facts: Sequence[ScenarioFacts]) -> list[str]:
    notes = [_MIX, *([_QUICK] if request.quick else [])]
    wanted = 2 * request.amount.scenarios
    if len(facts) < wanted:
        notes.append(f"The sources had {len(facts)} scenarios of the {wanted} asked for: give more of them.")
    repositories, languages = {each.repository for each in facts}, {each.language for each in facts}
    if len(repositories) < LEAST_REPOSITORIES or len(languages) < LEAST_LANGUAGES:
        notes.append(
            f"{len(repositories)} repositories in {len(languages)} languages say little about others: "
            f"give {LEAST_REPOSITORIES} in {LEAST_LANGUAGES} or more."
        )
    return notes


def _partial(policies: Mapping[str, EditFigures], scenarios: int) -> list[str]:
    """Return a note for each policy that was not asked everywhere, as its run was interrupted."""
    return [
        f"{name} was asked in {each.trials} of {scenarios} scenarios only: continue it with `--resume --policy {name}`."
        for name, each in policies.items()
        if each.trials < scenarios
    ]


def _require_free(request: EditBenchRequest) -> None:
    """Raise Conflict or InvalidInput where no run can begin, before anything takes time."""
    if (request.folder / RUN).exists():
        if not request.resume:
            raise Conflict(
                f"{request.folder} holds a run already", fix="Continue it with `--resume`, or give another `--name`"
            )
    elif request.folder.exists() and any(request.folder.iterdir()):
        raise InvalidInput(f"{request.folder} is not empty", fix="Name another folder")


def _begin(request: EditBenchRequest, identity: EditBenchIdentity) -> None:
    """Write ``run.json``, or check that it is the same as in the run that is continued."""
    path = request.folder / RUN
    if not path.exists():
        request.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_durable(path, msgspec.json.format(msgspec.json.encode(identity), indent=2))
        return
    try:
        before = msgspec.json.decode(path.read_bytes(), type=EditBenchIdentity)
    except (ValueError, RecursionError) as error:
        raise Conflict(f"cannot read {path}", why=str(error), fix="Start again with another `--name`") from None
    if before != identity:
        raise Conflict(
            f"the run in {request.folder} was started with other options",
            why=f"it has {before}, this would have {identity}",
            fix="Use the same options and the same commits, or start another with `--name`",
        )
