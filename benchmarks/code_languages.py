"""How well adapters fill holes in each language: the held-out files of the sources that `tune --code` learned.

    python benchmarks/code_corpus.py --out corpus | xargs -d '\\n' \\
        python benchmarks/code_languages.py --adapter python-fim --adapter code-fim

The same folders give the same held-out files as in tuning. Holes are judged by likelihood (docs/tuning.md, "The gate");
each adapter is compared with the bare base in pairs. For each language the first `--holes` of its holes.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from peft_core.paths import Paths
from peft_core.settings import resolve
from peft_core.status_types import TORCH
from peft_daemon.adapters.shipped_adapters import update_shipped_adapters
from peft_daemon.engines.waiting import set_wait_policy
from peft_tuning import methods
from peft_tuning.data.examples import FillExample
from peft_tuning.data.repository.dataset import folders_data_set
from peft_tuning.encode import EncodedExample, ExampleTokenizer, encode_examples
from peft_tuning.gate import average_scores, improvement
from peft_tuning.installation import Installation
from peft_tuning.judging import LIMITS
from peft_tuning.likelihood import AnswerLikelihood, AnswerScorer
from peft_tuning.prepare import load_base

TOGETHER = {"javascriptreact": "javascript", "typescriptreact": "typescript"}
FEWEST = 10
"""Languages with fewer holes than this are only counted in the whole."""


def by_language(examples: Sequence[FillExample], holes: int) -> dict[str, list[FillExample]]:
    """Return the first examples of each language."""
    found: dict[str, list[FillExample]] = defaultdict(list)
    for each in examples:
        own = found[TOGETHER.get(each.language, each.language)]
        if len(own) < holes:
            own.append(each)
    return dict(sorted(found.items()))


def cells(scores: Mapping[str, Sequence[AnswerLikelihood]]) -> list[str]:
    """Return exact and nats of each contestant, and how sure it is that one is better than the base, the first."""
    base, *others = (tuple(each) for each in scores.values())
    average = average_scores(base)
    found = [f"{average.exact:.1%}, {average.nats:.3f}"]
    for each in others:
        average, (likelier, righter) = average_scores(each), improvement(base, each)
        found.append(f"{average.exact:.1%}, {average.nats:.3f} ({righter:.3f}, {likelier:.4f})")
    return found


def main() -> None:
    """Score all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", action="append", required=True, metavar="FOLDER[=LICENCE]")
    parser.add_argument("--adapter", action="append", required=True)
    parser.add_argument("--holes", type=int, default=40, help="of each language")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    set_wait_policy("auto", threads=options.threads)
    paths = Paths.from_environment()
    installation = Installation(settings=resolve(user_file=paths.config_file).settings, paths=paths)
    update_shipped_adapters(installation.settings, paths)
    roots = [(Path(folder), licence) for folder, _, licence in (each.partition("=") for each in options.code)]
    data = folders_data_set(roots)
    base = load_base(installation.base.path, methods.get("lora"))
    scorer, tokenizer = AnswerScorer(base), ExampleTokenizer.of(base)

    def encoded(holes: Sequence[FillExample]) -> tuple[EncodedExample, ...]:
        return encode_examples(holes, installation.entry.prompt_formats, tokenizer, LIMITS).examples

    registry = installation.registry
    leases = {"base": None, **{name: registry.lease(registry.get(name), engine=TORCH) for name in options.adapter}}
    print(f"| language | holes | {' | '.join(leases)} |\n|{'---|' * (len(leases) + 2)}", flush=True)
    whole: dict[str, list[AnswerLikelihood]] = defaultdict(list)
    for language, holes in by_language([e for e in data.test if isinstance(e, FillExample)], options.holes).items():
        prompts = encoded(holes)
        if not prompts:
            continue
        scores = {name: scorer.score(prompts, lease) for name, lease in leases.items()}
        for name, each in scores.items():
            whole[name] += each
        if len(prompts) >= FEWEST:
            print(f"| {language} | {len(prompts)} | {' | '.join(cells(scores))} |", flush=True)
    print(f"| **all** | {len(whole['base'])} | {' | '.join(cells(whole))} |")


if __name__ == "__main__":
    main()
