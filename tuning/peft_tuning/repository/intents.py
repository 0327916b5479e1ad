"""Sentences with their functions: the first sentence of a docstring, and the function without it.

Python only. That a docstring or comment is answered in its file, by filling in, needs nothing of its own: those are
``BODY`` and ``BLOCK`` holes with ``asked`` set, see ``holes``.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence

from peft_core.code.structure import Span, Structure
from peft_tuning.examples import IntentExample

LEAST_WORDS = 3
LONGEST_SENTENCE = 300
LONGEST_CODE = 800
"""Characters; about the 256 tokens an answer may have."""
_QUOTES = re.compile(r"\A[a-zA-Z]{0,2}(\"{3}|'{3}|\"|')(.*?)\1\Z", re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[^.\W])[.:](?=\s+[A-Z`*]|\s*\Z)")


def intents(structure: Structure, path: str, avoid: Sequence[Span] = ()) -> Iterator[IntentExample]:
    """One example for each function that has a docstring with a sentence, and a body that touches no span to avoid."""
    text = structure.text.text
    for function in structure.functions:
        body, docstring = function.body, function.docstring
        if body is None or docstring is None or any(function.span.overlaps(each) for each in avoid):
            continue
        line = structure.text.starts[structure.text.row(function.span.start)]
        header, rest = Span(line, docstring.start), Span(docstring.end, body.end)
        if not text[line : function.span.start].strip() and 0 < rest.end - rest.start <= LONGEST_CODE:
            sentence = sentence_of(text[docstring.start : docstring.end])
            between = text[rest.start : rest.end].lstrip("\n")
            code = textwrap.dedent(text[header.start : header.end].rstrip() + "\n" + between)
            if sentence and _parses(code):
                yield IntentExample(id=f"{path}:{function.span.start}:{function.name}", intent=sentence, code=code)


def sentence_of(docstring: str) -> str:
    """The first sentence of a docstring (its source text, quotes included) on one line; empty if it says too little."""
    match = _QUOTES.match(docstring.strip())
    paragraph = " ".join(re.split(r"\n\s*\n", match[2].strip(), maxsplit=1)[0].split()) if match else ""
    end = _SENTENCE_END.search(paragraph)
    sentence = paragraph[: end.start()] if end else paragraph
    enough = len(re.findall(r"[^\W\d_]{2,}", sentence)) >= LEAST_WORDS
    return sentence if enough and len(sentence) <= LONGEST_SENTENCE and ">>>" not in sentence else ""


def _parses(code: str) -> bool:
    """Whether the code stands on its own: a string at the margin can keep it from being moved there."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bool(ast.parse(code).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
