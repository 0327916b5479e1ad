"""Where a completion ends: at its line, statement or block, before text that the document has already, in whole lines.

Lines inside open brackets and strings have no indentation to speak of and never end a block, so a closing bracket stays
with what it closes, however far left it stands. Only brackets and quotes that were open at the cursor are matched with
the text after it. Whether lines break the document is judged by a parser that goes on after errors (tree-sitter), for
languages with a grammar here (Python); for others every text fits. The grammar is loaded when first needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING

from peft_core.code.document import Document, leading_space, width
from peft_core.code.lexer import Closing, scan, without_comment
from peft_core.code.lexical_rules import rules_of
from peft_daemon.completion.cursor import Extent, block_indentation, closers, opens_block
from peft_daemon.completion.postprocess.cleanup import Draft, leaves_open

if TYPE_CHECKING:
    from tree_sitter import Node, Parser


MAX_COMMENT_CHARACTERS = 4000
"""Characters before the cursor in which comments are looked for."""
MIN_DISTINCTIVE_CHARACTERS = 10
"""Characters from which on a line found again below the cursor is no coincidence (``return``, ``else:`` are)."""


def one_line(draft: Draft, _document: Document) -> Draft:
    """Where a completion may not leave its line: up to the end of that line."""
    end = draft.text.find("\n")
    if draft.extent is not Extent.LINE or end < 0:
        return draft
    # A blank line may be what stands before a fence, which is taken away with what stands before it.
    return draft.cut(end) if draft.settled or draft.text[:end].strip() else draft.hold(end)


def drop_comments_above(draft: Draft, document: Document) -> Draft:
    """Without the comments at the beginning that stand above the cursor already: the request that is answered."""
    mark = rules_of(document.language).line_comment
    above = {line.strip() for line in document.prefix[-MAX_COMMENT_CHARACTERS:].split("\n")} if mark else set()
    begin = 0
    for start, end in pairwise(draft.line_starts()):
        line = draft.text[start:end].strip()
        if line and not (line.startswith(mark) and line in above):
            break
        begin = end if line else begin
    return replace(draft, text=draft.text[begin:]) if above else draft


def drop_following(draft: Draft, document: Document) -> Draft:
    """Cut where the text begins to repeat the lines that follow the cursor, whatever comments it adds to them.

    One distinctive line is enough, or as many as there are up to the end of the text; short lines (``else:``) are
    held back until the next one tells.
    """
    following = [without_comment(line, document.language) for line in document.next_lines]
    following = [line for line in following if line]
    starts = draft.line_starts()
    lines = [draft.text[a:b].rstrip("\n") for a, b in pairwise(starts)]
    lines = [document.line_before + line if index == 0 else line for index, line in enumerate(lines)]
    lines = [without_comment(line, document.language) for line in lines]
    for index in range(len(lines)):
        if not lines[index] or lines[index : index + 1] != following[:1]:
            continue
        same = [line for line in lines[index:] if line]
        matched = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(same, following, strict=False)))
        if len(following[0].strip()) >= MIN_DISTINCTIVE_CHARACTERS or matched >= 2:
            return draft.cut(starts[index])
        if matched == len(same):
            return draft.cut(starts[index]) if draft.settled else draft.hold(starts[index])
    return draft


_CLAUSES = {
    "if": ("elif", "else"),
    "elif": ("elif", "else"),
    "for": ("else",),
    "while": ("else",),
    "try": ("except", "else", "finally"),
    "except": ("except", "else", "finally"),
}
"""Words that go on with a statement at its own indentation."""
_LEAVES = frozenset({"return", "raise", "break", "continue"})
_WORD = re.compile(r"\s*(?:async\s+)?(\w+)")


def limit_scope(draft: Draft, document: Document) -> Draft:
    """Cut the text where it leaves what the cursor's extent allows."""
    match draft.extent:
        case Extent.LINE:
            return draft
        case Extent.STRING:
            return _string(draft, document)
        case Extent.STATEMENT:
            return _statement(draft, document)
        case Extent.BLOCK:
            return _block(draft, document)


def _block(draft: Draft, document: Document) -> Draft:
    """Up to a line left of the block, one that begins a new paragraph of it, or a statement that leaves it."""
    blank, floor = False, block_indentation(document)
    previous = document.line_before + draft.text.split("\n", 1)[0]
    for start, line in _free_lines(draft, document):
        if _word(previous) in _LEAVES and width(leading_space(previous)) <= floor:
            return draft.cut(start)
        previous = line
        if not line.strip():
            blank = True
            continue
        columns = width(leading_space(line))
        if columns < floor or (blank and columns == floor and draft.text[:start].strip()):
            return draft.cut(start)
        blank = False
    return draft


def _statement(draft: Draft, document: Document) -> Draft:
    """The logical line at the cursor; if it opens a block that block, and the clauses that go on with it."""
    whole = document.line_before + draft.text
    clauses, floor = _CLAUSES.get(_word(whole), ()), block_indentation(document)
    opened = False
    for index, (start, line) in enumerate(_free_lines(draft, document)):
        if index == 0:
            logical = whole[: len(document.line_before) + start].rstrip("\n")
            opened = not document.lexer_state.stack and opens_block(logical.rsplit("\n", 1)[-1], document.language)
        if not opened:
            return draft.cut(start)
        if line.strip() and width(leading_space(line)) <= floor and _word(line) not in clauses:
            return draft.cut(start)
    return draft


def _string(draft: Draft, document: Document) -> Draft:
    """The rest of the string and its quotes; only the rest of the paragraph if the quotes are there already."""
    closings = scan(draft.text, document.language, document.lexer_state).closings
    if not document.closed_after:
        return draft.cut(closings[0].end) if closings else draft
    if closings:
        draft = draft.cut(closings[0].start)
    paragraph = re.search(r"\S[^\n]*\n[ \t]*\n", draft.text)
    return draft.cut(paragraph.end() - 1) if paragraph else draft


def _word(line: str) -> str:
    match = _WORD.match(line)
    return match[1] if match else ""


def _free_lines(draft: Draft, document: Document) -> Iterator[tuple[int, str]]:
    """Offset and text of every line but the first that begins outside all brackets and strings.

    After a line end the line that comes next counts too, empty as it still is.
    """
    state, starts = document.lexer_state, draft.line_starts()
    lines = [(start, draft.text[start:end]) for start, end in pairwise(starts)]
    if draft.text.endswith("\n"):
        lines.append((len(draft.text), ""))
    for index, (start, line) in enumerate(lines):
        if index and not state.stack and not state.comment:
            yield start, line.rstrip("\n")
        state = scan(line, document.language, state).state


BRACKET_LIKE = frozenset("()[]{}\"'`")


def fit_closing(draft: Draft, document: Document) -> Draft:
    """Reconcile what the text closes with what the text after the cursor closes.

    Where both close the same, the text gives way: it ends before its own closing bracket. When it goes on after it
    (``a).strip()`` before a lone ``)``), it overwrites the one that is there instead.
    """
    ours = scan(draft.text, document.language, document.lexer_state).closings[: len(document.closed_after)]
    if not ours:
        return _drop_rest_of_line(draft, document)
    theirs = scan(document.line_after, document.language, document.lexer_state).closings
    adjacent = len(closers(document.line_after))
    reach = [each for each in theirs if each.end <= adjacent][: len(ours)]
    if not reach:
        return draft.cut(_without_rest_of_line(draft.text, document.line_after, ours[0]))
    last_ours, last_theirs = ours[len(reach) - 1], reach[-1]
    end = draft.text.find("\n", last_ours.end)
    tail = draft.text[ours[0].start : end if end >= 0 else None].strip()
    remains = document.line_after[last_theirs.end :].strip()
    same = tail == document.line_after[: last_theirs.end].strip()
    if len(ours) > len(reach) or remains or same or not draft.settled:
        return draft.cut(_without_rest_of_line(draft.text, document.line_after, ours[0]))
    return replace(draft, replace_after=last_theirs.end)


def _without_rest_of_line(text: str, rest: str, closing: Closing) -> int:
    """Where to end before ``closing``, and before what precedes it if that is repeated from the rest of the line."""
    repeated = rest[: rest.find(closing.closer) + len(closing.closer)] if closing.closer in rest else ""
    if len(repeated) > len(closing.closer) and text.endswith(repeated, 0, closing.end):
        return closing.end - len(repeated)
    return closing.start


def _drop_rest_of_line(draft: Draft, document: Document) -> Draft:
    """Without the rest of the cursor's line when the text ends with it, e.g. a ``:`` that is there already."""
    rest, text = document.line_after.strip(), draft.text.rstrip()
    if not rest or not draft.settled or not text.endswith(rest) or any(each in BRACKET_LIKE for each in rest):
        return draft
    while text.endswith(rest):
        text = text.removesuffix(rest).rstrip()
    return draft.cut(len(text))


_LAST_WORD = re.compile(r"\w+\Z")


def whole_lines(draft: Draft, document: Document) -> Draft:
    """Of a text that was cut off, the lines that are complete, and no bracket or string left open by the last.

    Of a text of less than one line, the whole words. While the text grows, lines that leave something open are held
    back: it may be cut off before they are closed.
    """
    if draft.done:
        return draft
    starts = draft.line_starts()
    if not draft.settled:
        return draft.hold(_closed_end(draft.text, starts[1:], document) or 0)
    if not draft.truncated:
        return draft
    if draft.extent is Extent.LINE or len(starts) <= 2:
        return draft.cut(len(_LAST_WORD.sub("", draft.text)))
    return draft.cut(_closed_end(draft.text, starts[1:-1], document) or starts[-2])


def _closed_end(text: str, ends: Sequence[int], document: Document) -> int | None:
    """The last of the line ends before which all is closed that the text opened."""
    for end in reversed(ends):
        if not leaves_open(text[:end], document):
            return end
    return None


def drop_misfits(draft: Draft, document: Document) -> Draft:
    """Take lines from the end until what is left breaks nothing in the document; the first line always stays.

    While the text grows those lines are held back: what comes next may make them fit.
    """
    if not document.lexer_state.code:
        return draft
    text = draft.text.rstrip()
    while "\n" in text.strip() and (
        bare_header(document, text) or not fits_syntax(document, text, draft.replace_after)
    ):
        text = text[: text.rfind("\n")].rstrip()
    return replace(draft, text=text)


def drop_blank(draft: Draft, _document: Document) -> Draft:
    """No white space at the end, and nothing at all if that is all there is."""
    return replace(draft, text=draft.text.rstrip()) if draft.text.strip() else replace(draft, text="", replace_after=0)


MAX_PARSED_CHARACTERS = 8_000
"""Characters on each side of the cursor that are parsed."""


def has_grammar(language: str) -> bool:
    """Whether texts of this language can be judged."""
    return language == "python"


def fits_syntax(document: Document, text: str, replace_after: int = 0) -> bool:
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
    before, after = document.prefix[-MAX_PARSED_CHARACTERS:], document.suffix[:MAX_PARSED_CHARACTERS]
    if len(document.prefix) > MAX_PARSED_CHARACTERS:
        start = before.find("\n") + 1
        while start and before[start : start + 1] in (" ", "\t", "\n", ")", "]", "}", "#"):
            start = before.find("\n", start) + 1
        before = before[start:]
    if len(document.suffix) > MAX_PARSED_CHARACTERS:
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
