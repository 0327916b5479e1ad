"""Which prompt formats a model needs, found out from its own vocabulary and chat template.

Only the words of its files count, not their names. The formats found may be corrected by whoever adds the model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise

from peft_core.api_types import Task
from peft_core.errors import InvalidInput
from peft_core.gguf import TokenKind, Vocabulary
from peft_daemon.completion.chat_template import format_of_template
from peft_daemon.completion.formats import (
    ENTRIES,
    FORMATS,
    LEFT_TO_RIGHT,
    FormatEntry,
    PromptField,
    PromptFormat,
    get,
)
from peft_daemon.engines.base import Segment

SPECIAL_KINDS = frozenset({TokenKind.CONTROL, TokenKind.USER_DEFINED, TokenKind.UNKNOWN})
"""Kinds of tokens that an engine finds as a whole when asked for a control token."""
ALWAYS_SPECIAL = frozenset(
    {
        *("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|repo_name|>", "<|file_sep|>"),
        *("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "▁<PRE>", "▁<SUF>", "▁<MID>"),
        *("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    }
)
"""Tokens that llama.cpp takes for control tokens by name, whatever kind the file gives them (llama-vocab.cpp)."""
_TOKEN_KEYS = (("fim_pre_token_id", "prefix_token_id"), ("fim_suf_token_id", "suffix_token_id"))
"""Keys by which a file names the tokens before prefix and suffix; the second ones are deprecated."""


def fill_format_of(vocabulary: Vocabulary, *, architecture: str = "") -> PromptFormat:
    """Return the fill-in-the-middle format that a model with this vocabulary was trained with.

    It is the one whose control tokens are all there. If the file names its tokens for prefix and suffix, the format
    has to use these. Of several formats that fit, the one counts that names the file's pretokenizer, then the one with
    the most tokens. Raises InvalidInput with the nearest family and the tokens of it that the vocabulary lacks.
    """
    special = _special_tokens(vocabulary)
    named = set(_named_tokens(vocabulary))
    candidates = [entry for entry in _candidates(architecture) if named.issubset(FORMATS[entry.id].control_tokens)]
    if not candidates:
        raise _refused(f"it names {_listed(named)} as its tokens, which no known format has")
    fitting = [
        entry
        for entry in candidates
        if special.issuperset(FORMATS[entry.id].control_tokens)
        and (not entry.pretokenizers or vocabulary.pretokenizer in entry.pretokenizers)
    ]
    if not fitting:
        raise _refused(_what_is_missing(candidates, special))
    best = max(fitting, key=lambda entry: (bool(entry.pretokenizers), len(FORMATS[entry.id].control_tokens)))
    return FORMATS[best.id]


def fill_or_continue_format_of(vocabulary: Vocabulary, *, architecture: str) -> PromptFormat:
    """Return the format for holes; ``left-to-right-v1`` for a model without a control token of any known one.

    Raises InvalidInput as ``fill_format_of`` does for a model that has some of the tokens of a family.
    """
    special = _special_tokens(vocabulary)
    if any(special & _hole_tokens(FORMATS[entry.id]) for entry in _candidates(architecture)):
        return fill_format_of(vocabulary, architecture=architecture)
    return LEFT_TO_RIGHT


def _candidates(architecture: str) -> list[FormatEntry]:
    """Return the formats with control tokens for holes that a model of this architecture may have."""
    return [
        entry
        for entry in ENTRIES
        if entry.task is Task.FILL and entry.tokens and (not entry.architectures or architecture in entry.architectures)
    ]


def _special_tokens(vocabulary: Vocabulary) -> set[str]:
    # Tokens without a kind, in a broken file, are no control tokens; the engine refuses such a file.
    special = {
        token
        for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=False)
        if kind in SPECIAL_KINDS or token in ALWAYS_SPECIAL
    }
    # A model that ends with a token of another kind writes it as text, which the format's stop strings catch.
    return special | {form.end for form in FORMATS.values()}.intersection(vocabulary.tokens)


def instruct_format_of(vocabulary: Vocabulary) -> PromptFormat:
    """Return the format for sentences: from the file's chat template, or ``instruct-v1`` if it has none.

    Starts a child process for a template. Raises InvalidInput for a template that cannot be used.
    """
    template = vocabulary.metadata.get("tokenizer.chat_template")
    if not isinstance(template, str) or not template.strip():
        return get("instruct-v1")
    return format_of_template(template, vocabulary)


def _named_tokens(vocabulary: Vocabulary) -> Iterator[str]:
    for keys in _TOKEN_KEYS:
        ids = (vocabulary.metadata.get(f"tokenizer.ggml.{key}") for key in keys)
        id_ = next((id_ for id_ in ids if isinstance(id_, int) and 0 <= id_ < len(vocabulary.tokens)), None)
        if id_ is not None:
            yield vocabulary.tokens[id_]


def _what_is_missing(candidates: Collection[FormatEntry], special: set[str]) -> str:
    """Why none fits, by the one that shares the most tokens; those that begin and end any text do not count first."""

    def shared(entry: FormatEntry) -> tuple[int, int]:
        return len(special & _hole_tokens(FORMATS[entry.id])), len(special & set(FORMATS[entry.id].control_tokens))

    nearest = max(candidates, key=shared)
    if shared(nearest)[0] == 0:
        return "it has no control tokens of any known family"
    missing = set(FORMATS[nearest.id].control_tokens) - special
    lacks = _listed(missing) if missing else f"the pretokenizer {_listed(nearest.pretokenizers)}"
    return f"the nearest family is {nearest.family} ({nearest.id}), of which it lacks {lacks}"


def _hole_tokens(form: PromptFormat) -> set[str]:
    """The control tokens directly before the fields of a prompt."""
    return {
        piece.text
        for piece, following in pairwise(form.pieces)
        if isinstance(piece, Segment) and piece.special and isinstance(following, PromptField)
    }


def _listed(tokens: Collection[str]) -> str:
    return ", ".join(sorted(tokens))


def _refused(why: str) -> InvalidInput:
    fills = ", ".join(entry.id for entry in ENTRIES if entry.task is Task.FILL)
    return InvalidInput(
        "the model's file does not say how to fill in the middle",
        why=why,
        fix=f"If you know its format, name it with `--fill-format ID` ({fills})",
    )
