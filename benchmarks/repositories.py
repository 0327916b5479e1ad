"""What learning a repository gains, on many: an adapter of its own, code of its other files in the prompt, both.

    python benchmarks/repositories.py --folder results --minutes 22 CLONE [CLONE …]
    python benchmarks/repositories.py --folder results --report docs/reports/repositories/README.md

Each repository is learned as `tune --repo` does it, without its newest commits, and judged on the lines that these
added. An interrupted run goes on where it was; a repository whose result is there is not measured again. The results
hold figures and commits, no code.
"""

from __future__ import annotations

import argparse
import resource
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from context_quality import with_chunks
from learning import Ground
from scipy.stats import bootstrap

from peft_core.code import git
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.engines.torch.base_model import load_model
from peft_daemon.engines.waiting import set_wait_policy
from peft_tuning import budget, methods, prepare
from peft_tuning.data.examples import FillExample
from peft_tuning.events import StepFinished, TuneEvent
from peft_tuning.gate import SWEEP_SHARE, average_scores, best_share, improvement
from peft_tuning.job import FILE, TuneJob, load_identity, short_run
from peft_tuning.judging import mixtures
from peft_tuning.likelihood import AnswerLikelihood
from peft_tuning.start import with_start
from peft_tuning.trainer import ADAPTER, train

CONTESTANTS = ("base", "served", "context", "adapter", "both")
"""``served``: what serves by default; ``context``: the same with chunks, in prompts that are no longer; ``both``."""
MARK = "<!-- results -->"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What one repository showed."""

    name: str
    commit: str
    """Its newest commit."""
    provenance: str
    documents: int
    """That were learned."""
    languages: dict[str, int]
    """Held-out holes of each."""
    served: str
    """The name of what serves by default."""
    share: float
    """How much of the way from there to the new adapter was best on other holes; 0: nothing of it."""
    steps: int
    tokens: int
    minutes: float
    """Of training, since it was resumed last."""
    memory_bytes: int
    holes: dict[str, list[tuple[bool, float]]]
    """Of each contestant, hole by hole: exact, and nats per token."""

    def scores(self, contestant: str) -> tuple[AnswerLikelihood, ...]:
        """Return one contestant's answers."""
        return tuple(AnswerLikelihood(exact, nats) for exact, nats in self.holes[contestant])


def measure(
    repository: Path, folder: Path, *, minutes: float, documents: int | None, holes: int, threads: int
) -> Result:
    """Learn one repository, or go on with it, and judge it; ``documents`` takes the place of the time."""
    ground = Ground.of(repository, holes=holes)
    data, entry, start = ground.data, ground.installation.entry, ground.start
    if start is None:
        raise SystemExit(f"nothing serves by default in {repository}: is the base the default model?")
    print(data.provenance, flush=True)
    job = with_start(
        TuneJob(method="lora", threads=threads, limit=documents, **short_run("lora")),  # type: ignore[arg-type]
        start,
    )
    run = folder / "run"
    begun = (run / FILE).exists()
    if begun:
        job = budget.as_begun(job, load_identity(run))
    model = load_model(ground.installation.base.path, methods.get("lora").precision_on("cpu"))
    prepared = prepare.prepare(job, model, data, entry.prompt_formats, start=start)
    if not begun and documents is None:
        prepared = budget.fit(prepared, minutes * 60)
    trained = train(prepared, run, tell, resume=begun)
    sweep = ground.encoded(data.validation[: round(len(data.validation) * SWEEP_SHARE)])
    ways = mixtures(start, AdapterLease("made", run / ADAPTER), run / "mixtures").points
    averages = {share: average_scores(ground.scorer.score(sweep, lease)) for share, lease in ways.items()}
    share = best_share(averages)
    tested = [each for each in data.test if isinstance(each, FillExample)]
    shown = with_chunks(repository, data, tested)
    rows = sorted({*ground.encoding(tested).rows} & {*ground.encoding(shown).rows})  # those that can be scored
    prompts = {chunks: ground.encoded([each[row] for row in rows]) for chunks, each in ((False, tested), (True, shown))}
    contestants = {
        "base": (None, False),
        "served": (start.lease, False),
        "context": (start.lease, True),
        "adapter": (ways[share], False),
        "both": (ways[share], True),
    }
    languages = [tested[row].language for row in rows]
    return Result(
        name=repository.resolve().name,
        commit=git.head_commit(repository.resolve()),
        provenance=data.provenance,
        documents=len(prepared.train.examples),
        languages={each: languages.count(each) for each in sorted(set(languages))},
        served=start.manifest.name,
        share=share,
        steps=trained.steps,
        tokens=prepared.schedule.epochs * prepared.train.tokens,
        minutes=round(trained.seconds / 60, 1),
        memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        holes={
            name: [(each.exact, round(each.nats, 5)) for each in ground.scorer.score(prompts[chunks], lease)]
            for name, (lease, chunks) in contestants.items()
        },
    )


def tell(event: TuneEvent) -> None:
    """Tell how far training is, now and then."""
    if isinstance(event, StepFinished) and event.step % 20 == 0:
        print(f"step {event.step} of {event.steps}, loss {event.loss:.3f}, {event.eta_s:.0f} s left", flush=True)


def interval(differences: Sequence[float]) -> str:
    """Return the mean and its bootstrapped 95 % interval, in points."""
    values = 100 * np.asarray(differences, dtype=np.float64)
    if len(set(values)) < 2:
        return f"{values.mean():+.1f}"
    found = bootstrap((values,), np.mean, rng=np.random.default_rng(0), method="basic").confidence_interval
    return f"{values.mean():+.1f} ({found.low:+.1f} to {found.high:+.1f})"


def line(name: str, results: Sequence[Result]) -> str:
    """Return the table's row of these repositories together."""
    scores = {who: tuple(each for one in results for each in one.scores(who)) for who in CONTESTANTS}
    averages = [average_scores(each) for each in scores.values()]
    cells = [name, str(averages[0].holes), *(f"{each.exact:.1%}, {each.nats:.3f}" for each in averages)]
    for who in ("adapter", "both"):
        pairs = list(zip(scores["served"], scores[who], strict=True))
        likelier, righter = improvement(scores["served"], scores[who])
        cells += [
            interval([float(now.exact) - float(then.exact) for then, now in pairs]),
            f"{righter:.3f}, {likelier:.4f}",
        ]
    return f"| {' | '.join(cells)} |"


def report(results: Sequence[Result]) -> str:
    """Return the report's two tables."""
    together = [line("**all**", results)] if len(results) > 1 else []
    judged = "\n".join([*(line(each.name, [each]) for each in results), *together])
    runs = "\n".join(
        f"| {each.name} | {each.commit[:12]} | {', '.join(f'{k} {n}' for k, n in each.languages.items())} | "
        f"{each.documents} | {each.steps} | {each.tokens:,} | {each.share:g} | {each.minutes:.0f} | "
        f"{each.memory_bytes / 1e9:.1f} GB |"
        for each in results
    )
    return (
        f"| repository | holes | {' | '.join(CONTESTANTS)} | adapter, points (95 %) | p: exact, nats | both | p |\n"
        f"|{'---|' * (len(CONTESTANTS) + 6)}\n{judged}\n\n"
        "| repository | commit | held-out holes | documents | steps | tokens | share | minutes | memory |\n"
        f"|---|---|---|---|---|---|---|---|---|\n{runs}\n"
    )


def main() -> None:
    """Measure the repositories that have no result yet, and print or write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", type=Path, nargs="*", help="clones with their history")
    parser.add_argument("--folder", type=Path, required=True, help="for results and interrupted runs")
    parser.add_argument("--minutes", type=float, default=22.0, help="of training: three quarters of half an hour")
    parser.add_argument("--documents", type=int, help="learned once each, whatever the time, as on a busy machine")
    parser.add_argument("--holes", type=int, default=128, help="of each of the two held-out parts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report", type=Path, help="a file whose text below `<!-- results -->` is replaced")
    options = parser.parse_args()
    set_wait_policy("auto", threads=options.threads)
    for repository in options.repositories:
        folder = options.folder / repository.resolve().name
        file = folder / "result.json"
        if not file.exists():
            found = measure(
                repository,
                folder,
                minutes=options.minutes,
                documents=options.documents,
                holes=options.holes,
                threads=options.threads,
            )
            file.write_bytes(msgspec.json.encode(found))
            shutil.rmtree(folder / "run")
    files = sorted(options.folder.glob("*/result.json"))
    text = report([msgspec.json.decode(each.read_bytes(), type=Result) for each in files])
    print(text)
    if options.report:
        before = options.report.read_text(encoding="utf-8").partition(MARK)[0]
        options.report.write_text(f"{before}{MARK}\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
