"""All four parts together."""

from __future__ import annotations

from collections.abc import Mapping

from peft_evaluation.metrics.code_bleu import data_flow
from peft_evaluation.metrics.code_bleu.ngrams import bleu, weighted_recall
from peft_evaluation.metrics.code_bleu.parsing import parse
from peft_evaluation.metrics.code_bleu.stripping import strip
from peft_evaluation.metrics.code_bleu.syntax_match import syntax_match

WEIGHT = 0.25
"""Of each part, as in the study."""


def code_bleu(candidate: str, reference: str) -> Mapping[str, float]:
    """``codebleu`` and its parts, from 0 to 1; ``codebleu-dataflow`` is absent where the reference has no data flow.

    As in the package, a data flow of which nothing agrees counts as 1 in the sum, as one that is not there does.
    """
    candidate, reference = candidate.strip(), reference.strip()
    words, theirs = candidate.split(), reference.split()
    plain, bare = strip(candidate), strip(reference)
    tree, reference_tree = parse(plain), parse(bare)
    parts = {
        "codebleu-ngram": bleu(theirs, words),
        "codebleu-weighted": weighted_recall(theirs, words),
        "codebleu-syntax": syntax_match(reference_tree, tree),
    }
    flow = data_flow.match(data_flow.data_flow(reference_tree, bare), data_flow.data_flow(tree, plain))
    total = WEIGHT * (sum(parts.values()) + (flow or 1.0))
    return {"codebleu": total, **parts, **({} if flow is None else {"codebleu-dataflow": flow})}
