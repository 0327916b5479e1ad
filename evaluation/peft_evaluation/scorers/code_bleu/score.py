"""CodeBLEU of one answer: the mean of n-grams, weighted n-grams, syntax and data flow.

Words are separated by white space. If no n-gram matches, 0.1 matches are assumed (Chen and Cherry 2014, method 1). In
the weighted part, Python's keywords count five times as much as other words. Syntax is the share of the reference's
subtrees that the answer has, compared without names and values. Subtrees are compared by numbers, not as printed text:
printing all of them takes time that grows with the square of the depth, and can overflow tree-sitter's stack.
"""

from __future__ import annotations

import io
import keyword
import math
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

from tree_sitter import Node

from peft_core.code.languages import GRAMMARS, parser_of
from peft_evaluation.scorers.code_bleu import data_flow

WEIGHT = 0.25
"""Weight of each part, as in the paper."""


def code_bleu(candidate: str, reference: str) -> Mapping[str, float]:
    """Return ``codebleu`` and its parts, 0 to 1; without ``codebleu-dataflow`` if the reference has no data flow.

    As in the package, a data flow without any match counts as 1 in the sum, and so does a missing data flow.
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


def corpus_code_bleu(pairs: Iterable[tuple[str, str]]) -> float:
    """Return CodeBLEU of all pairs of an answer and its reference as one text, 0 to 1: matches are added up first.

    This is what publications give. It is lower than the mean over the pairs: an n-gram that one pair lacks is not
    smoothed away, and pairs without a data flow do not count as full matches.
    """
    words: list[tuple[Words, Words]] = []
    syntax, flow = [0, 0], [0, 0]
    for candidate, reference in ((each.strip(), other.strip()) for each, other in pairs):
        words.append((reference.split(), candidate.split()))
        plain, bare = strip(candidate), strip(reference)
        tree, reference_tree = parse(plain), parse(bare)
        for counts, found in (
            (syntax, syntax_counts(reference_tree, tree)),
            (flow, data_flow.counts(data_flow.data_flow(reference_tree, bare), data_flow.data_flow(tree, plain))),
        ):
            counts[0] += found[0]
            counts[1] += found[1]
    if not words:
        return 0.0
    ngram = [_added(_precision(theirs, ours, n) for theirs, ours in words) for n in range(1, MAX_NGRAM + 1)]
    weighted = [
        _added(_recall(theirs, ours, n, _weights(theirs) if n == 1 else {}) for theirs, ours in words)
        for n in range(1, MAX_NGRAM + 1)
    ]
    length = sum(len(ours) for _theirs, ours in words)
    parts = (
        _score(_brevity(sum(len(theirs) for theirs, _ours in words), length), ngram),
        _score(_brevity(REFERENCE_LENGTH * len(words), length), weighted),
        syntax[0] / syntax[1],
        flow[0] / flow[1] if flow[0] else 1.0,
    )
    return WEIGHT * sum(parts)


def _added(counts: Iterable[tuple[float, float]]) -> tuple[float, float]:
    every = list(counts)
    return sum(matched for matched, _of in every), sum(of for _matched, of in every)


MAX_NGRAM = 4
SMOOTHING = 0.1
"""Number of matches that is assumed if there are none."""
NON_KEYWORD_WEIGHT = 0.2
"""Weight of a word that is not a keyword."""
KEYWORDS = frozenset(keyword.kwlist) | {"match", "case", "type"}
REFERENCE_LENGTH = 2
"""Length of the reference in the brevity penalty of the weighted part: the package counts (words, weights) as words."""

Words = Sequence[str]


def bleu(reference: Words, candidate: Words) -> float:
    """Return BLEU-4 of one answer."""
    parts = [_precision(reference, candidate, n) for n in range(1, MAX_NGRAM + 1)]
    return _score(_brevity(len(reference), len(candidate)), parts)


def weighted_recall(reference: Words, candidate: Words) -> float:
    """Return the same as ``bleu`` with recall in place of precision, and with weights of single words."""
    weights = _weights(reference)
    parts = [_recall(reference, candidate, n, weights if n == 1 else {}) for n in range(1, MAX_NGRAM + 1)]
    return _score(_brevity(REFERENCE_LENGTH, len(candidate)), parts)


def _weights(reference: Words) -> Mapping[str, float]:
    return {word: 1.0 if word in KEYWORDS else NON_KEYWORD_WEIGHT for word in reference}


def _score(brevity: float, parts: Sequence[tuple[float, float]]) -> float:
    if parts[0][0] == 0:
        return 0.0
    logs = [math.log((matched or SMOOTHING) / of) / MAX_NGRAM for matched, of in parts]
    return brevity * math.exp(math.fsum(logs))


def _brevity(reference: int, candidate: int) -> float:
    if candidate > reference:
        return 1.0
    return math.exp(1 - reference / candidate) if candidate else 0.0


def _precision(reference: Words, candidate: Words, n: int) -> tuple[float, float]:
    theirs, ours = _ngrams(reference, n), _ngrams(candidate, n)
    return sum((ours & theirs).values()), max(1, sum(ours.values()))


def _recall(reference: Words, candidate: Words, n: int, weights: Mapping[str, float]) -> tuple[float, float]:
    theirs, ours = _ngrams(reference, n), _ngrams(candidate, n)
    return _sum(theirs & ours, weights), max(1, _sum(theirs, weights))


def _sum(counts: Counter[tuple[str, ...]], weights: Mapping[str, float]) -> float:
    return sum(count * (weights[ngram[0]] if weights else 1) for ngram, count in counts.items())


def _ngrams(words: Words, n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))


_Shape = tuple[object, ...]


def syntax_match(reference: Node, candidate: Node) -> float:
    """Return the share of the reference's subtrees whose shape occurs in the candidate, 0 to 1."""
    matched, of = syntax_counts(reference, candidate)
    return matched / of


def syntax_counts(reference: Node, candidate: Node) -> tuple[int, int]:
    """Return how many of the reference's subtrees have a shape that occurs in the candidate, and how many there are."""
    numbers: dict[_Shape, int] = {}
    theirs, ours = list(_shapes(reference, numbers)), set(_shapes(candidate, numbers))
    return sum(shape in ours for shape in theirs), len(theirs)


def _shapes(root: Node, numbers: dict[_Shape, int]) -> Iterator[int]:
    """Yield the number of each subtree that is not a token, and of the whole tree; equal shapes have equal numbers.

    ``numbers`` has the number of each shape so far; new shapes are added.
    """
    cursor = root.walk()
    levels: list[list[_Shape]] = [[]]
    down = True
    while True:
        if down and cursor.goto_first_child():
            levels.append([])
            continue
        node, inner = cast("Node", cursor.node), [] if down else levels.pop()
        number = numbers.setdefault((_kind(node), *inner), len(numbers))
        whole = len(levels) == 1
        if whole or node.child_count:
            yield number
        if whole:
            return
        # Operators and keywords are not part of a shape, but their children are.
        levels[-1] += [(cursor.field_name, number)] if node.is_named or node.is_missing else inner
        down = cursor.goto_next_sibling()
        if not down:
            cursor.goto_parent()


def _kind(node: Node) -> _Shape:
    if node.type == "ERROR" and not node.child_count:
        return (str(node),)  # only here the text is part of the shape
    return node.type, node.is_named, node.is_missing


def strip(code: str) -> str:
    """Return code without comments, docstrings and empty lines; ``code`` itself if it cannot be tokenized.

    A string at column 0 is taken for a docstring as well.
    """
    try:
        kept = "".join(_kept(code))
    except (tokenize.TokenError, SyntaxError, ValueError):
        return code
    return "\n".join(line for line in kept.split("\n") if line.strip())


def _kept(code: str) -> list[str]:
    pieces: list[str] = []
    before, last_line, last_column = tokenize.INDENT, -1, 0
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        line, column = token.start
        if line > last_line:
            last_column = 0
        pieces.append(" " * (column - last_column))
        docstring = token.type == tokenize.STRING and (before in (tokenize.INDENT, tokenize.NEWLINE) or column == 0)
        if token.type != tokenize.COMMENT and not docstring:
            pieces.append(token.string)
        before = token.type
        last_line, last_column = token.end
    return pieces


def parse(code: str) -> Node:
    """Return the root of the code's syntax tree."""
    return parser_of(GRAMMARS["python"]).parse(code.encode(errors="replace")).root_node
