"""Fill-in-the-middle prompts that clients write themselves, taken apart again.

Many editors know no ``suffix`` field: they send one text with the control tokens of the model that they were set up
for. Taken as it is such a text is nothing but odd characters, since text is always tokenized literally. Here it becomes
what it stands for, a hole and chunks of other files, and the prompt is then written anew in the served model's format.

A text is taken apart only if all of it has the shape of such a prompt, with each token of the hole exactly once. So a
file that talks about these tokens stays text, and its tokens can never become control tokens. Does not cover what the
prompt for a hole looks like: see ``prompt``.
"""

from __future__ import annotations

from dataclasses import dataclass

from peft_core.api_types import ContextChunk


@dataclass(frozen=True)
class WrittenHole:
    """What a client's prompt says: the text around the cursor, and what it shows of other files."""

    prefix: str
    suffix: str
    path: str | None = None
    repository: str = ""
    context: tuple[ContextChunk, ...] = ()


def parse(text: str) -> WrittenHole | None:
    """The hole that ``text`` asks to fill; None if it is not, as a whole, such a prompt."""
    for markers in FIM_MARKERS:
        if (found := _parse(text, markers)) is not None:
            return found
    return None


def _parse(text: str, markers: FimMarkers) -> WrittenHole | None:
    tokens = tuple(token for token in (markers.prefix, markers.suffix, markers.middle) if token)
    if any(text.count(token) != 1 for token in tokens):
        return None
    order = sorted(tokens, key=text.index)
    hole = text.index(order[0])
    header = _header(text[:hole], markers)
    if header is None or order[0] == markers.middle:
        return None
    ends = [*(text.index(token) for token in order[1:]), len(text)]
    parts = {token: text[text.index(token) + len(token) : end] for token, end in zip(order, ends, strict=True)}
    if markers.spaced:
        parts = _without_spaces(parts, markers)
    repository, path, chunks = header
    # What stands behind the middle token is how the answer begins: the client wants what comes after it.
    prefix = parts[markers.prefix] + parts.get(markers.middle, "")
    return WrittenHole(prefix, parts[markers.suffix], path, repository, chunks)


def _without_spaces(parts: dict[str, str], markers: FimMarkers) -> dict[str, str]:
    """Without the space that the family writes after and before its tokens."""
    return {
        markers.prefix: parts[markers.prefix].removeprefix(" ").removesuffix(" "),
        markers.suffix: parts[markers.suffix].removesuffix(" "),
        markers.middle: parts[markers.middle].removeprefix(" "),
    }


def _header(text: str, markers: FimMarkers) -> tuple[str, str | None, tuple[ContextChunk, ...]] | None:
    """Repository, path of the document and chunks from what stands before the hole; None if it is something else."""
    if text.startswith(EMPTY_PREAMBLE):
        return "", None, ()
    for begin in markers.begin:
        text = text.removeprefix(begin)
    repository = ""
    for token in markers.repository:
        if text.startswith(token):
            name, *files = text.removeprefix(token).split("\n", 1)
            repository = name
            text = files[0] if files else ""
    if not text:
        return repository, None, ()
    separator = next((each for each in markers.file if text.startswith(each)), None)
    if separator is None:
        return None
    chunks = []
    for each in text.split(separator)[1:]:
        path, _, content = each.partition("\n")
        chunks.append(ContextChunk(path.strip(), content))
    last = chunks[-1]
    # Only the document's own name stands directly before the hole; some clients do not write it.
    own = chunks.pop().path if not last.text.strip() else None
    return repository, own or None, tuple(chunk for chunk in chunks if chunk.text.strip())


EMPTY_PREAMBLE = "Context:\n\n"
"""llama.vscode's OpenAI mode begins so, and goes on with ``[object Object]`` for each piece of another file."""


@dataclass(frozen=True)
class FimMarkers:
    """The tokens between which clients write a hole for a model family, in whatever order; see ``client_prompts``."""

    prefix: str
    suffix: str
    middle: str = ""
    """Empty: the answer follows the text before the cursor."""
    repository: tuple[str, ...] = ()
    """Forms of the token before the repository's name, with which a prompt of several files may begin."""
    file: tuple[str, ...] = ()
    """Forms of the token before each file's path."""
    begin: tuple[str, ...] = ()
    """Pieces that may come before all else."""
    spaced: bool = False
    """Whether a space stands between the tokens and the text."""


FIM_MARKERS = (
    # Qwen2.5-Coder, CodeGemma, Granite 4
    FimMarkers(
        *("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"), ("<|repo_name|>",), ("<|file_sep|>",), ("<bos>",)
    ),
    # StarCoder, StarCoder2, StableCode, Granite 3, Mellum
    FimMarkers(
        *("<fim_prefix>", "<fim_suffix>", "<fim_middle>"), ("<repo_name>", "<reponame>"), ("<file_sep>", "<filename>")
    ),
    FimMarkers("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", begin=("<｜begin▁of▁sentence｜>",)),
    FimMarkers("<PRE>", "<SUF>", "<MID>", begin=("<s>", " "), spaced=True),
    # Codestral
    FimMarkers("[PREFIX]", "[SUFFIX]", begin=("<s>",)),
    # GLM
    FimMarkers("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),
    # Seed-Coder
    FimMarkers("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>"),
)
"""What clients send that were set up for one of these families. The first that fits counts."""
