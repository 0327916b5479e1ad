"""Code of other files of the repository, chosen as it is when serving; or none at all, to compare with.

The very selection of ``peft_daemon.context``, on the repository as it lies there. A hole's own file never is among the
chunks, so its answer is seen only where another file has a copy of it, as it would be when serving.
"""

from __future__ import annotations

from enum import StrEnum

from peft_core.code.imports import Related
from peft_core.code.workspace import workspace_files
from peft_core.errors import InvalidInput
from peft_daemon.context.index import Index
from peft_daemon.context.selection import CHARACTERS_PER_TOKEN, SelectionLimits, SelectionQuery, select_chunks
from peft_evaluation.items import ItemSet
from peft_evaluation.strategies.base import Strategy
from peft_tuning.data.examples import FillExample

TOKENS = 300


class Mixture(StrEnum):
    """Which kinds of chunks there are."""

    SERVED = "served"
    """As completions are shown them."""
    SIGNATURES = "signatures"
    PASSAGES = "passages"


def alone(items: ItemSet) -> Strategy:
    """The hole in its file, without the chunks that its example has."""
    return Strategy(id="alone", contexts=((),) * len(items.items))


def with_context(items: ItemSet, tokens: int = TOKENS, mixture: Mixture = Mixture.SERVED) -> Strategy:
    """Chunks of at most ``tokens`` tokens; raises InvalidInput for items that are no holes in a repository."""
    if items.root is None:
        raise InvalidInput(
            f"{items.name} has no other files", why="`context` shows code of a repository", fix="Give --repo FOLDER"
        )
    index = Index(items.root)
    for path in index.listed(workspace_files(items.root)):
        index.update(path)
    related, recipe = Related(index.paths, index.text), recipe_of(tokens, mixture)
    contexts = tuple(
        select_chunks(index, related, SelectionQuery(example.path, example.prefix, example.suffix), (), recipe)
        if isinstance(example := item.example, FillExample)
        else ()
        for item in items.items
    )
    name = "context" if mixture is Mixture.SERVED else f"context-{mixture}"
    return Strategy(
        id=f"{name}-{tokens}",
        contexts=contexts,
        settings={
            "context": f"{mixture}, {tokens} tokens",
            "index": f"{index.files} files, {index.passages} passages",
            "items with chunks": str(sum(map(bool, contexts))),
        },
    )


def recipe_of(tokens: int, mixture: Mixture) -> SelectionLimits:
    """Room for each kind of chunk; nobody edits while an evaluation runs."""
    room = int(tokens * CHARACTERS_PER_TOKEN)
    if mixture is Mixture.SIGNATURES:
        return SelectionLimits(signatures=room, edits=0, passages=0)
    if mixture is Mixture.PASSAGES:
        return SelectionLimits(signatures=0, edits=0, passages=room)
    return SelectionLimits.of_tokens(tokens)
