"""How sure the model is of what it suggests, and how right it was: what ``completion/confidence.py`` was fitted to.

    python benchmarks/confidence.py collect --out answers.jsonl CLONE [CLONE …]
    python benchmarks/confidence.py fit answers.jsonl

``collect`` cuts holes in the lines that a repository's newest commits added, types a part of each, and keeps what
completion shows there with the model's log-probabilities, and the code that really follows. It goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import msgspec
import numpy as np

from peft_core.code.document import Document
from peft_core.paths import Paths
from peft_core.settings import resolve
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.shipped_adapters import update_shipped_adapters
from peft_daemon.completion import formats
from peft_daemon.completion.cache import GeneratedText
from peft_daemon.completion.confidence import Evidence, Weights, WrittenToken, evidence, last_sure, points
from peft_daemon.completion.eagerness import LEAST
from peft_daemon.completion.job import CompletionJob, Limits, RequestBuilder
from peft_daemon.completion.stream import Completion, follow
from peft_daemon.engines.base import Engine
from peft_daemon.engines.temporary import measurement_settings, temporary_engine
from peft_daemon.models import catalogue
from peft_daemon.models.store import open_store
from peft_tuning.data.examples import FillExample
from peft_tuning.data.repository.documents import learning_data_set

ANSWER_TOKENS = 96
PROMPT_TOKENS = 256
RIDGE = 0.01


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What was suggested at one place."""

    id: str
    repository: str
    language: str
    kind: str
    typed: str
    """What had been typed of the code that was cut out."""
    right: str
    """The rest of it."""
    shown: str
    raw: str
    tokens: list[tuple[int, int, float | None]]
    """Of ``raw``: begin, end, log-probability."""
    line_before: str
    extent: str


async def completed(engine: Engine, job: CompletionJob) -> tuple[GeneratedText, Completion]:
    """Complete a job to its end."""
    request = await RequestBuilder(engine, Limits(resolve().settings)).full(job)
    generated = GeneratedText(job.target, request.begins_with)
    async for chunk in engine.generate(request):
        generated.add(chunk)
    generated.over = True

    async def nothing_more() -> None:
        raise AssertionError

    async for part in follow(generated, nothing_more, job):
        if isinstance(part, Completion):
            return generated, part
    raise AssertionError


def places(hole: FillExample) -> Iterator[str]:
    """Yield what was typed at each place: nothing, and a random part."""
    yield ""
    if len(hole.middle) > 2:
        yield hole.middle[: random.Random(hole.id).randrange(1, len(hole.middle) - 1)]


async def collect(options: argparse.Namespace) -> None:
    """Append the answers that the output does not have."""
    paths = Paths.from_environment()
    settings = resolve(user_file=paths.config_file).settings
    update_shipped_adapters(settings, paths)
    entry, registry = catalogue.get(settings.model), AdapterRegistry(paths.adapters)
    manifest = registry.get(options.adapter)
    lease = registry.lease(manifest, manifest.scale)
    out: Path = options.out
    done = {each.id for each in read(out)} if out.exists() else set()
    path = open_store(settings, paths).file_to_serve(entry, settings).path
    # Tokens that are guessed ahead have no probability, where it serves as here.
    served = msgspec.structs.replace(measurement_settings(settings), speculation=settings.speculation)
    async with temporary_engine(served, entry, path) as engine:
        with out.open("ab") as file:
            for repository in options.repositories:
                name = repository.resolve().name
                data = learning_data_set(repository, seed=42, max_documents=50, held_out_holes=options.holes)
                holes = [each for each in (*data.test, *data.validation) if isinstance(each, FillExample)]
                for number, hole in enumerate(holes):
                    sys.stderr.write(f"\r{name}: {number}/{len(holes)}  ")
                    for typed in places(hole):
                        key = f"{name}:{hole.id}:{len(typed)}"
                        if key in done:
                            continue
                        job = CompletionJob(
                            document=Document.normalized(
                                hole.prefix + typed, hole.suffix, path=hole.path, language=hole.language
                            ),
                            format=formats.get(entry.prompt_formats.fill),
                            context_tokens=2048,
                            prompt_tokens=PROMPT_TOKENS,
                            max_tokens=ANSWER_TOKENS,
                            adapter=lease,
                            automatic=True,
                        )
                        if job.hopeless is not None:
                            continue
                        generated, end = await completed(engine, job)
                        answer = Answer(
                            id=key,
                            repository=name,
                            language=hole.language,
                            kind=str(hole.kind),
                            typed=typed,
                            right=hole.middle[len(typed) :],
                            shown=end.text,
                            raw=generated.text,
                            tokens=[(each.begin, each.end, each.logprob) for each in generated.tokens],
                            line_before=job.target.line_before,
                            extent=str(job.extent),
                        )
                        file.write(msgspec.json.encode(answer) + b"\n")
                        file.flush()
                sys.stderr.write("\n")


def read(path: Path) -> list[Answer]:
    """Return the answers of a file."""
    return [msgspec.json.decode(line, type=Answer) for line in path.read_bytes().splitlines()]


@dataclass(frozen=True)
class Point:
    """A point at which a suggestion may end."""

    end: int
    found: Evidence
    right: bool


@dataclass(frozen=True)
class Judged:
    """An answer with its points, and how many of its characters are right, from the first."""

    answer: Answer
    points: tuple[Point, ...]
    right: int

    @classmethod
    def of(cls, answer: Answer) -> Judged:
        right = sum(takewhile(bool, (a == b for a, b in zip(answer.shown, answer.right, strict=False))))
        tokens = [WrittenToken(*each) for each in answer.tokens]
        here = Document(answer.line_before, "", language=answer.language)
        ends = points(answer.shown, here, over=True)
        return cls(answer, tuple(Point(end, evidence(tokens, 0, end), end <= right) for end in ends), right)

    def shown(self, weights: Weights, least: float) -> int:
        """Return how many characters are shown."""
        return last_sure(((each.end, each.found) for each in self.points), least, weights)[0]


def fitted(judged: Sequence[Judged]) -> Weights:
    """Return the weights of the logistic regression; each answer counts once, however many points it has."""
    rows = [(each, 1 / len(one.points)) for one in judged for each in one.points if each.found.known]
    features = np.array([[1.0, each.found.total, each.found.unknown] for each, _ in rows])
    right, share = np.array([float(each.right) for each, _ in rows]), np.array([each for _, each in rows])
    weights = np.zeros(3)
    for _ in range(50):
        likely = 1 / (1 + np.exp(-features @ weights))
        gradient = features.T @ (share * (right - likely)) - RIDGE * weights
        curvature = features.T @ (features * (share * likely * (1 - likely))[:, None]) + RIDGE * np.eye(3)
        weights = weights + np.linalg.solve(curvature, gradient)
    return Weights(*(round(float(each), 3) for each in weights))


def fit(options: argparse.Namespace) -> None:
    """Print the weights of all answers, and what each threshold does in repositories that it was not fitted to."""
    judged = [Judged.of(each) for each in read(options.answers) if each.shown.strip()]
    names = sorted({each.answer.repository for each in judged})
    print(f"{len(judged)} suggestions in {', '.join(names)}; all of them: {fitted(judged)}")
    others = {name: fitted([each for each in judged if each.answer.repository != name]) for name in names}
    right, wrong = sum(each.right for each in judged), sum(len(each.answer.shown) - each.right for each in judged)
    print("| least | shown | right as a whole | characters right | characters wrong | right of 100 shown |")
    print("|---|---|---|---|---|---|")
    for least in (0.0, *options.least):
        ends = [(each, each.shown(others[each.answer.repository], least)) for each in judged]
        ends = [(each, end) for each, end in ends if each.answer.shown[:end].strip()]
        kept = sum(min(end, each.right) for each, end in ends)
        characters = sum(end for _, end in ends)
        whole = sum(end <= each.right for each, end in ends) / len(ends)
        print(
            f"| {least} | {len(ends) / len(judged):.0%} | {whole:.0%} | {kept / right:.0%} | "
            f"{(characters - kept) / wrong:.0%} | {100 * kept / characters:.0f} |"
        )


def main() -> None:
    """Collect answers, or fit to them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    collecting = commands.add_parser("collect")
    collecting.add_argument("repositories", type=Path, nargs="+")
    collecting.add_argument("--adapter", default="code-fim")
    collecting.add_argument("--holes", type=int, default=48)
    collecting.add_argument("--out", type=Path, required=True)
    collecting.set_defaults(run=lambda given: asyncio.run(collect(given)))
    fitting = commands.add_parser("fit")
    fitting.add_argument("answers", type=Path)
    fitting.add_argument("--least", type=float, nargs="+", default=[*sorted(LEAST.values()), 0.1, 0.2, 0.6])
    fitting.set_defaults(run=fit)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
