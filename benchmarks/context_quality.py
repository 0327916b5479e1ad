"""Does code from elsewhere pay? Lines that the newest commits added, with and without chunks in a prompt as served.

    python benchmarks/context_quality.py --out context.json [--way served:300] [--way passages:300] CLONE [CLONE …]

The other files are as they were before those commits. Chunks take their tokens from the document's, so that all prompts
have the same limit. Answers are judged by their likelihood (``peft_tuning.likelihood``) with the adapter that serves by
default; each way is compared with ``none`` hole by hole. What the output file has is not measured again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import msgspec
from learning import Ground, row, shown_context

from peft_daemon.engines.waiting import set_wait_policy
from peft_evaluation.strategies import ChunkMixture, chunk_limits
from peft_tuning.data.examples import DataSet, FillExample
from peft_tuning.data.repository.chunks import CONTEXT_TOKENS
from peft_tuning.likelihood import AnswerLikelihood

NONE, SERVED = "none", f"served:{CONTEXT_TOKENS}"

Scores = dict[str, dict[str, list[tuple[bool, float]]]]
"""Exact and nats of each hole, by repository and way."""


def with_chunks(repository: Path, data: DataSet, holes: Sequence[FillExample], way: str = SERVED) -> list[FillExample]:
    """Return the holes with chunks of the tree as it was before the commits that are held out.

    ``way`` is a mixture and its tokens; see ``ChunkMixture``.
    """
    mixture, _, tokens = way.partition(":")
    shown = shown_context(holes, data, repository, chunk_limits(int(tokens), ChunkMixture(mixture)))
    return [each for each in shown if isinstance(each, FillExample)]


def measured(scores: Scores, way: str) -> tuple[AnswerLikelihood, ...]:
    """Return the scores of one way, of all repositories."""
    return tuple(AnswerLikelihood(exact, nats) for each in scores.values() for exact, nats in each[way])


def main() -> None:
    """Measure what the output file does not have, and print a row for each way, of each repository and of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", type=Path, nargs="+", help="clones with their history")
    parser.add_argument("--way", action="append", help=f"may be repeated [{SERVED}]")
    parser.add_argument("--holes", type=int, default=96, help="of each of the two held-out parts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    set_wait_policy("auto", threads=options.threads)
    ways = [NONE, *(options.way or [SERVED])]
    scores: Scores = msgspec.json.decode(options.out.read_bytes(), type=Scores) if options.out.exists() else {}
    for repository in options.repositories:
        name = repository.resolve().name
        done = scores.setdefault(name, {})
        missing = [way for way in ways if way not in done]
        if not missing:
            continue
        ground = Ground.of(repository, holes=options.holes)
        holes = [each for each in (*ground.data.test, *ground.data.validation) if isinstance(each, FillExample)]
        for way in missing:
            shown = holes if way == NONE else with_chunks(repository, ground.data, holes, way)
            found = ground.scorer.score(ground.encoded(shown), ground.served)
            done[way] = [(each.exact, round(each.nats, 5)) for each in found]
            options.out.write_bytes(msgspec.json.encode(scores))
    for name, part in ((name, {name: scores[name]}) for name in scores):
        for way in ways:
            print(name, row(way, measured(part, way), measured(part, NONE)))
    for way in ways:
        print("all", row(way, measured(scores, way), measured(scores, NONE)))


if __name__ == "__main__":
    main()
