"""Whether text fits where it would be put, judged by a parser that goes on after errors (tree-sitter).

Only languages with a grammar here (Python) are judged; for others every text fits. The grammar is loaded when first
needed. What is open at a point of a broken document is not a parser's business: see ``lexical``.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING

from peft_core.code.document import Document, leading_space, width
from peft_daemon.completion.cursor import opens_block

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

NEARBY = 8_000
"""Characters on each side of the cursor that are parsed."""


def has_grammar(language: str) -> bool:
    """Whether texts of this language can be judged."""
    return language == "python"


def fits(document: Document, text: str, replace_after: int = 0) -> bool:
    """Whether the document with ``text`` at the cursor has no more syntax errors than without it."""
    if not has_grammar(document.language):
        return True
    before, after = _nearby(document)
    # Without the half line being typed: a line that was broken before must not excuse one that still is.
    without = before[: before.rfind("\n") + 1] + after[len(document.line_after) :]
    with_text = before + text + after[replace_after:]
    return _errors(with_text, document.language) <= _errors(without, document.language)


def bare_header(document: Document, text: str) -> bool:
    """Whether the last line of ``text`` announces a block that neither it nor the document goes on with."""
    lines = (document.line_before + text).rstrip().split("\n")
    header = lines[-1]
    if not opens_block(header, document.language) or document.line_after.strip():
        return False
    below = document.next_lines[0] if document.next_lines else ""
    return width(leading_space(below)) <= width(leading_space(header))


def _nearby(document: Document) -> tuple[str, str]:
    """Text around the cursor, cut at lines that are not indented where there are such lines."""
    before, after = document.prefix[-NEARBY:], document.suffix[:NEARBY]
    if len(document.prefix) > NEARBY:
        start = before.find("\n") + 1
        while start and before[start : start + 1] in (" ", "\t", "\n", ")", "]", "}", "#"):
            start = before.find("\n", start) + 1
        before = before[start:]
    if len(document.suffix) > NEARBY:
        end = after.rfind("\n")
        while end > 0 and after[end + 1 : end + 2] in (" ", "\t", "\n", ")", "]", "}", "#", ""):
            end = after.rfind("\n", 0, end)
        after = after[: end + 1] if end > 0 else after
    return before, after


@lru_cache(maxsize=8)
def _errors(text: str, language: str) -> int:
    """Error and missing nodes in the syntax tree of ``text``."""

    def count(node: Node) -> int:
        here = int(node.is_error or node.is_missing)
        return here + (sum(map(count, node.children)) if node.has_error else 0)

    return count(_parser(language).parse(text.encode("utf-8", "replace")).root_node)


@cache
def _parser(language: str) -> Parser:
    import tree_sitter  # noqa: PLC0415  (0.1 s, and not needed until there is text to judge)
    import tree_sitter_python  # noqa: PLC0415

    grammars = {"python": tree_sitter_python.language}
    return tree_sitter.Parser(tree_sitter.Language(grammars[language]()))
