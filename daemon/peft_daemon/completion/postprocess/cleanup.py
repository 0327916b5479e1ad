"""The draft of a suggestion, and the steps that clean it: of chat, secrets, endless rounds and odd indentation.

Fences and explanations never reach the editor; text inside strings and comments is left alone, and so are documents in
which fences are code. A text is cut before a line with a value that looks like a secret: such a value is either copied,
which shows a secret in another place, or made up. The mask that stands for secrets in prompts counts as well, unless
the document has it too. The text of a model that runs in circles is cut after the first round. Within a line that is
only believed of a text that was cut off: a model that ended its row of zeros meant it. A row that goes on and on is cut
off for it (``circles``), so that decoding does not go on to the token limit. Indentation is neither missing nor given
twice, and is written in the document's own tabs or spaces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from peft_core.code.document import Document, leading_space, width
from peft_core.code.lexer import scan, without_comment
from peft_core.privacy.values import MASK, secret_values
from peft_daemon.completion.cursor import Extent, block_indentation, statement_above


@dataclass(frozen=True)
class Draft:
    """The text that steps work on: a completion in the making.

    A step never adds to the end of a text and looks at complete lines only, so that what has been shown once stays: of
    a draft that is not ``settled`` a step may hold lines back until it knows more, and a later call gives them.
    """

    text: str
    extent: Extent
    """How far it may reach."""
    done: bool = False
    """Nothing can be added to the text any more: decoding may stop."""
    final: bool = False
    """The model has ended; the text is all there is."""
    truncated: bool = False
    """Final, but because the model was stopped (out of tokens or time) in the middle of what it had to say."""
    replace_after: int = 0
    """Characters after the cursor that the text overwrites."""

    @property
    def settled(self) -> bool:
        """Whether the end of the text is known."""
        return self.done or self.final

    def cut(self, end: int) -> Draft:
        """The text up to ``end``, with nothing to follow."""
        return replace(self, text=self.text[:end], done=True)

    def hold(self, end: int) -> Draft:
        """The text up to ``end``; the rest may come later."""
        return replace(self, text=self.text[:end])

    def line_starts(self) -> list[int]:
        """Offsets at which the lines of the text begin; the first is 0, and the end of the text comes last."""
        starts, at = [0], self.text.find("\n") + 1
        while at:
            starts.append(at)
            at = self.text.find("\n", at) + 1
        if starts[-1] != len(self.text):
            starts.append(len(self.text))
        return starts


Step = Callable[[Draft, Document], Draft]


MAX_REMARK_CHARACTERS = 4000
"""Characters before the cursor in which the document's own comments are looked for."""
PROSE_LANGUAGES = frozenset({"markdown", "restructuredtext", "plaintext", "latex", "html", "asciidoc"})
_FENCE = re.compile(r"[ \t]*```[^\n`]*$")
# A sentence or heading of the kind a chat model puts before and after code, and the demonstrations it adds.
_EXPLANATION = re.compile(
    r"""[ \t]*(?:
        \#{2,4}[ ]\w.* | \*\*\w.* | (?:Explanation|Output|Example|Note|Usage)s?\b[^=(]*:[ ]*
        |(?=[^\n]*\b(?:the|an?|to|of|you|is|are|this|that|it|in|with|for)\b)[A-Z][\w']*,?(?:[ ][^\n=]*){4,}[.:!?]
        |\#[ ]*(?:Example|Sample|Test)\b[^\n]*
    )[ \t]*$""",
    re.VERBOSE,
)


def strip_chat(draft: Draft, document: Document) -> Draft:
    """Only the code: what a fence holds with which the answer begins, or what comes before a fence or explanation."""
    if document.language in PROSE_LANGUAGES or not document.lexer_state.code:
        return draft
    text, state = draft.text, document.lexer_state
    goes_on = bool(document.line_before.strip())
    begin = 0
    began = fenced = False
    for start, end in pairwise(draft.line_starts()):
        line = text[start:end].rstrip("\n")
        fence = state.code and _FENCE.match(line) is not None
        explains = state.code and not (goes_on and start == 0) and _EXPLANATION.match(line) is not None
        if not began:
            if fence or explains:
                begin, fenced, began = end, fence, fence
                continue
            began = goes_on or bool(line.strip())  # the line of the cursor ends what it goes on with
        elif fence or (explains and not fenced):
            return replace(draft, text=text[begin:start], done=True)
        state = scan(text[start:end], document.language, state).state
    return replace(draft, text=text[begin:])


def drop_remarks(draft: Draft, document: Document) -> Draft:
    """Without comments at the end of lines of code (``# Output: 5``) where the document has none of its own."""
    if "#" not in draft.text or document.language != "python" or not document.lexer_state.code:
        return draft
    if any(_has_remark(line) for line in document.prefix[-MAX_REMARK_CHARACTERS:].split("\n")):
        return draft
    state, lines = document.lexer_state, draft.text.split("\n")
    for index, line in enumerate(lines):
        before = document.line_before if index == 0 else ""
        code = without_comment(line, document.language, state)
        if (before + code).strip():
            lines[index] = code if code != line.rstrip() else line
        state = scan(line + "\n", document.language, state).state
    return replace(draft, text="\n".join(lines))


def _has_remark(line: str) -> bool:
    code = without_comment(line, "python")
    return bool(code.strip()) and code != line.rstrip()


_HEADING = re.compile(r"(?:#|//)\s*(?:example|usage|sample|test)\b", re.I)
_DEFINITION = re.compile(r"^(?:async\s+def|def|class|function|func|fn)\s", re.M)


def drop_usage(draft: Draft, document: Document) -> Draft:
    """The text before a comment at the margin that announces an example, if something was defined before it.

    Decoding stops there: such examples are about half of what the model writes for a sentence.
    """
    for start, end in pairwise(draft.line_starts()):
        if _HEADING.match(draft.text[start:end]) and _DEFINITION.search(draft.text[:start]):
            return draft.cut(len(draft.text[:start].rstrip()) + 1)
    return draft


_MAX_MASK_CHARACTERS = 8_000
"""Characters on each side of the cursor in which the document's own mask is looked for."""
_GOES_ON = "1aB2cD3eF4gH5iJ6"
"""Stands for what is still to come of a text that was cut off."""


def drop_secrets(draft: Draft, document: Document) -> Draft:
    """Cut the text before the first line that holds a secret value, or that was cut off inside one."""
    begun = document.line_before
    text = begun + draft.text
    found = [end - 1 for end in _secret_ends(text) if end > len(begun)]
    if draft.truncated:
        probed = secret_values(text + _GOES_ON)
        found += [len(text) - 1 for start, end in probed if start <= len(text) < end and _opens(text[:start])]
    if (mask := _mask(draft.text, cut_off=draft.truncated)) >= 0 and not _has_mask(document):
        found.append(len(begun) + mask)
    if not found:
        return draft
    return draft.cut(draft.text.rfind("\n", 0, max(min(found) - len(begun), 0)) + 1)


def _secret_ends(text: str) -> Iterator[int]:
    yield from (end for _, end in secret_values(text))
    at = 0
    for line in text.split("\n"):
        # Blanks at the end are dropped later, and hide a value whose closing quote is missing.
        if (bare := line.rstrip()) != line:
            yield from (at + end for _, end in secret_values(bare))
        at += len(line) + 1


def _opens(text: str) -> bool:
    return text.endswith(("'", '"', "`"))


def _mask(text: str, *, cut_off: bool) -> int:
    """Where the mask stands in a text, or its beginning at the end of one that was cut off; -1 for nowhere."""
    at = text.find(MASK)
    if at < 0 and cut_off:
        at = text.rfind(MASK[:2])
        return at if MASK.startswith(text[at:]) else -1
    return at


def _has_mask(document: Document) -> bool:
    return MASK in document.prefix[-_MAX_MASK_CHARACTERS:] or MASK in document.suffix[:_MAX_MASK_CHARACTERS]


MAX_ROUND_LINES = 6
"""Lines in the longest round that is looked for."""
MIN_ROUNDS = 3
"""How often lines must occur in a row to count as running in circles."""
MAX_UNIT_CHARACTERS = 60
"""Characters in the longest round that is looked for within a line."""
MIN_ENDLESS_ROUNDS = 8
"""Repeats of a piece within a line from which on the text may be cut off."""
MIN_ENDLESS_CHARACTERS = 120
"""Length of such a row from which on the text is cut off: tables and rules are written in one line too."""
_IN_LINE = re.compile(rf"(.{{4,{MAX_UNIT_CHARACTERS}}}?)\1{{3,}}.{{0,{MAX_UNIT_CHARACTERS}}}\Z", re.DOTALL)


def cut_repetition(draft: Draft, document: Document) -> Draft:
    """Cut a text whose last lines, or whose last line's pieces, repeat without end.

    Of a line that does, the first round stays only where there is no other line. Lines before the cut that leave a
    bracket or string open go too: what would have closed it never came.
    """
    starts = draft.line_starts()
    lines = [draft.text[a:b].rstrip() for a, b in pairwise(starts)]
    held = len(lines)
    for period in range(1, min(MAX_ROUND_LINES, len(lines)) + 1):
        run = 0
        for index in range(period, len(lines)):
            run = run + 1 if _again(lines, index, period) else 0
            if run >= period * (MIN_ROUNDS - 1) and any(lines[index - period + 1 : index + 1]):
                return _closed(draft.cut(starts[index - run + 1]), document)
        held = min(held, len(lines) - run)
    if not draft.settled:
        # The beginning of what may turn out to be another round.
        return draft.hold(starts[held])
    begin = starts[-2] if len(starts) > 1 else 0
    if draft.truncated and (end := _first_round(draft.text, begin)):
        return _closed(draft.cut(begin if draft.text[:begin].strip() else end), document)
    return draft


def _again(lines: list[str], index: int, period: int) -> bool:
    """Whether a line is the one that stands ``period`` lines above, with the same indentation.

    Where nested blocks end, the same closing bracket or ``end`` comes several times, each less indented.
    """
    earlier, line = lines[index - period], lines[index]
    # The first line has the indentation that stands before the cursor.
    return line.strip() == earlier.strip() if index == period else line == earlier


def drop_repetition(draft: Draft, document: Document) -> Draft:
    """The same for an answer that stands for itself: a line that runs in circles is no code, not even the only one."""
    shown = cut_repetition(draft, document)
    in_line = shown.done and not draft.done and draft.text[len(shown.text) - 1 : len(shown.text) + 1].count("\n") == 0
    return shown.cut(0) if in_line else shown


def circles(text: str) -> bool:
    """Whether the last line of a growing text is a row of one piece that has gone on for too long to be meant."""
    tail = text[text.rfind("\n") + 1 :][-MAX_UNIT_CHARACTERS * (MIN_ENDLESS_ROUNDS + 1) :]
    unit, length = _row(tail)
    return length >= max(MIN_ENDLESS_CHARACTERS, unit * MIN_ENDLESS_ROUNDS)


def _first_round(text: str, start: int) -> int:
    """Where the first round of the row ends with which the line at ``start`` ends; 0 without such a row."""
    found = _IN_LINE.search(text, start)
    if found and any(map(str.isalnum, found[1])):
        return found.end(1)
    unit, length = _row(text[start:])
    return len(text) - length + unit if length >= max(MIN_ENDLESS_CHARACTERS, unit * MIN_ENDLESS_ROUNDS) else 0


def _row(line: str) -> tuple[int, int]:
    """The piece that a line repeats at its end, as the lengths of one and of all of them; the shortest piece counts."""
    for unit in range(1, min(MAX_UNIT_CHARACTERS, len(line) // MIN_ENDLESS_ROUNDS) + 1):
        length = unit
        while length < len(line) and line[-length - 1] == line[-length - 1 + unit]:
            length += 1
        if length >= max(MIN_ENDLESS_CHARACTERS, unit * MIN_ENDLESS_ROUNDS):
            return unit, length
    return 0, 0


def _closed(draft: Draft, document: Document) -> Draft:
    """Up to the last line end at which nothing is open that the text opened; the whole text if nothing is."""
    for end in reversed([*draft.line_starts()[:-1], len(draft.text)]):
        if not leaves_open(draft.text[:end], document):
            return draft.cut(end)
    return draft


def leaves_open(text: str, document: Document) -> bool:
    """Return whether a text at the cursor opens a bracket or string that it does not close."""
    before = document.lexer_state
    return len(scan(text, document.language, before).state.stack) > len(before.stack)


MAX_STYLE_CHARACTERS = 20_000
"""Characters before the cursor in which the document's way of indenting is looked for."""
SPACES_PER_LEVEL = 4
"""What a level of the model's own indentation has, when it must be written in tabs."""
_TABS = re.compile(r"^\t", re.MULTILINE)
_SPACES = re.compile(r"^ {2,}", re.MULTILINE)
_LEADING = re.compile(r"^[ \t]+", re.MULTILINE)


def fit_indentation(draft: Draft, document: Document) -> Draft:
    """Make the text begin at the cursor's column, and move the lines below with its first."""
    before = document.line_before
    if before.strip() or not document.lexer_state.code or document.lexer_state.stack:
        return draft
    here, floor = width(before), block_indentation(document)
    text = draft.text
    code = len(text) - len(text.lstrip(" \t\n"))
    skipped = text.rfind("\n", 0, code) + 1
    if skipped and here and code < len(text):
        # The model left the cursor's line blank and began again on another one.
        lead = text[skipped:code]
        if width(lead) < floor or not lead.startswith(before):
            return draft.cut(0)
        text = text[skipped + len(before) :]
    elif skipped:
        return draft
    lead = leading_space(text)
    if here < floor and not lead and text:
        text = _missing(document) + text
    elif here >= floor and lead:
        text = _shifted(text, lead, here)
    return replace(draft, text=text)


def place_at_cursor(draft: Draft, document: Document) -> Draft:
    """Code that was written for itself, moved to the indentation of the cursor's line."""
    lines = draft.text.lstrip("\n").split("\n")
    own = leading_space(lines[0])
    target = document.indentation if not document.line_before.strip() else ""
    placed = [line.removeprefix(own) for line in lines]
    return replace(
        draft, text="\n".join(target + line if index and line.strip() else line for index, line in enumerate(placed))
    )


def _shifted(text: str, lead: str, here: int) -> str:
    """The first line without ``lead``; the others too, when the first of them shows that they have it as well."""
    first, *others = text.split("\n")
    example = next((line for line in others if line.strip()), "")
    if width(leading_space(example)) >= here + width(lead):
        others = [line[len(lead) :] if line.startswith(lead) else line for line in others]
    return "\n".join([first[len(lead) :], *others])


def _missing(document: Document) -> str:
    """What the cursor's line lacks to stand inside the block that the line above opens."""
    above = leading_space(statement_above(document))
    return _written(above + level(document), _style(document))[len(document.line_before) :]


def level(document: Document) -> str:
    """One level of the document's indentation."""
    return "\t" if _style(document) == "\t" else " " * SPACES_PER_LEVEL


def use_document_style(draft: Draft, document: Document) -> Draft:
    """Indentation in tabs where the document has tabs alone, in spaces where it has spaces alone."""
    style = _style(document)
    goes_on = bool(document.line_before.strip())

    def convert(match: re.Match[str]) -> str:
        return match[0] if goes_on and match.start() == 0 else _written(match[0], style)

    return replace(draft, text=_LEADING.sub(convert, draft.text)) if style else draft


def _written(space: str, style: str) -> str:
    """White space of the same width in tabs or spaces alone."""
    if not style or not space.strip(style):
        return space
    columns = len(space.expandtabs(SPACES_PER_LEVEL))
    return "\t" * (columns // SPACES_PER_LEVEL) if style == "\t" else " " * columns


def _style(document: Document) -> str:
    """A tab or a space where the document near the cursor indents with one of them alone, else empty."""
    nearby = document.prefix[-MAX_STYLE_CHARACTERS:]
    tabs, spaces = _TABS.search(nearby) is not None, _SPACES.search(nearby) is not None
    return "" if tabs == spaces else "\t" if tabs else " "
