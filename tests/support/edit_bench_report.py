"""A report of a benchmark of next edits, from trials that were made up."""

from __future__ import annotations

from peft_evaluation.edit_benchmark.figures import compare_policies, figures_of, places_found
from peft_evaluation.edit_benchmark.results import EditBenchReport, EditTrial, ScenarioFacts
from peft_evaluation.edit_benchmark.scenarios import SILENT_KINDS, AnswerDistance, ScenarioKind
from peft_evaluation.edit_benchmark.scores import EditScores
from peft_evaluation.report.schema import Machine

COUNT = 12


def facts() -> dict[str, ScenarioFacts]:
    """Half with an answer, half without, of two repositories."""
    found = []
    for number in range(COUNT):
        answer = number % 2 == 0
        found.append(
            ScenarioFacts(
                id=f"s{number}",
                repository=f"r{number % 4 // 2}",
                commit="c" * 40,
                path="a.py",
                language="python" if number < 6 else "go",
                kind=ScenarioKind.ANSWER if answer else SILENT_KINDS[number % 3],
                distance=tuple(AnswerDistance)[number % 3] if answer else None,
                lines=100,
                edits=1,
                place_found=number % 4 == 0 if answer else None,
            )
        )
    return {each.id: each for each in found}


def trials() -> list[EditTrial]:
    """``ours`` finds two of three answers and speaks once in six silences; ``nothing`` says nothing."""
    found = []
    for number, each in enumerate(facts().values()):
        answer = each.kind is ScenarioKind.ANSWER
        exact = answer and number % 3 != 0
        shown = exact or number == 1
        found.append(
            EditTrial(
                policy="ours",
                scenario=each.id,
                scores=EditScores(
                    shown=shown,
                    exact=exact,
                    of_commit=exact,
                    similarity=1.0 if exact else 0.0,
                    quiet=None if answer else not shown,
                    reversal=1.0 if number == 1 else 0.0,
                ),
                silence="" if shown else "unsure",
                confidence=0.5 + number / 100,
                tokens=40,
                mean_log_probability=-0.1,
                latency_ms=100.0 * (number + 1),
            )
        )
        found.append(
            EditTrial(
                policy="nothing", scenario=each.id, scores=EditScores(shown=False, quiet=None if answer else True)
            )
        )
    return found


def edit_report() -> EditBenchReport:
    """The report of these trials."""
    names = ("ours", "nothing")
    return EditBenchReport(
        created="2026-12-01T00:00:00+00:00",
        command="peft-daemon bench edits",
        seconds=12.5,
        seed=0,
        quick=False,
        model="tiny",
        model_sha256="a" * 64,
        scenarios_sha256="b" * 64,
        machine=Machine(processor="any", cores=2, memory_bytes=10**9, system="Linux"),
        versions={"peft-daemon": "1"},
        edit_policies={name: figures_of(name, [t for t in trials() if t.policy == name], facts()) for name in names},
        comparisons=compare_policies(names, trials(), facts()),
        places_found=places_found(facts().values()),
        scenarios=tuple(facts().values()),
        trials=tuple(trials()),
        notes=("a note",),
    )
