"""What a completion is to be, decided from the code around the cursor: how far it may reach, and for which sentence.

Whether a completion is one line, one statement or a block is decided here and nowhere else.

A sentence at the cursor may ask for code. Two places count: below (or at the end of) a comment on lines of its own that
is phrased as a request, and inside a function whose body is a docstring and nothing else. Comments that describe,
switch tools on or off, state a licence or hold code do not, nor does a comment whose code is there already. Does not
cover how the code is then asked for.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from enum import StrEnum

from peft_core.api_types import CompleteRequest, Task
from peft_core.code.document import Document, leading_space, width
from peft_core.code.lexer import CLOSERS, bracket_balance, scan, without_comment
from peft_core.code.lexical_rules import rules_of
from peft_core.errors import InvalidInput

LONGEST_HEADER = 60
"""Lines above the cursor's among which the beginning of a header is looked for."""


class Extent(StrEnum):
    """How far a completion may reach."""

    LINE = "line"
    """To the end of the cursor's line."""
    STATEMENT = "statement"
    """To the end of the statement on the cursor's line, with the block or the brackets it opens."""
    BLOCK = "block"
    """To the end of the block the cursor stands in, or its next paragraph."""
    STRING = "string"
    """To the end of the string that spans lines in which the cursor stands."""

    @classmethod
    def at_cursor(cls, document: Document, single_line: bool | None = None) -> Extent:
        """Decide it from the code around the cursor; ``single_line`` true or false overrules what is seen there."""
        rest, state = document.line_after.strip(), document.lexer_state
        if single_line or state.comment == "\n":
            return cls.LINE
        if state.string:
            spans = rules_of(document.language).spans_lines(state.string)
            return cls.STRING if spans and not rest and single_line is None else cls.LINE
        if single_line is None and (rest or _body_follows(document)):
            return cls.LINE
        if not document.line_before.strip() and not state.stack:
            return cls.BLOCK
        return cls.BLOCK if single_line is False and not state.stack else cls.STATEMENT


def _body_follows(document: Document) -> bool:
    """Whether the block that the cursor's line may open is there already."""
    below = document.next_lines[0] if document.next_lines else ""
    return bool(document.line_before.strip()) and width(leading_space(below)) > width(document.indentation)


def block_indentation(document: Document) -> int:
    """The columns of indentation that a line needs to belong to the block the cursor stands in."""
    above, here = document.previous_line, document.line_before
    if here.strip():
        return width(document.indentation)
    header = width(leading_space(statement_above(document)))
    if width(here) <= header and above and opens_block(above, document.language):
        return header + 1
    return width(here)


def opens_block(line: str, language: str) -> bool:
    """Whether a line of code announces an indented block or leaves a bracket open."""
    code = without_comment(line, language)
    return code.endswith(":") if language == "python" else code.endswith(("{", "(", "[", ":"))


def statement_above(document: Document) -> str:
    """The line on which the statement begins that ends on the nearest line above the cursor's.

    Another one than that where a header runs over several lines: ``def f(a,`` above ``b):``.
    """
    above = document.previous_line
    open_brackets = bracket_balance(above, document.language)
    if open_brackets >= 0:
        return above
    end = document.prefix.rfind(above, 0, document.line_start)
    for line in reversed(document.prefix[:end].split("\n")[-LONGEST_HEADER - 1 : -1]):
        open_brackets += bracket_balance(line, document.language)
        if open_brackets >= 0:
            return line
    return above


def closers(text: str) -> str:
    """The closing brackets, quotes and separators a line begins with: what editors insert by themselves."""
    end = 0
    while end < len(text) and (text[end] in CLOSERS or text[end] in "\"'`:;, \t"):
        end += 1
    return text[:end]


MOST_LINES = 6
"""Lines a request in comments may have; longer ones are prose."""
LEAST_WORDS = 3
_REQUEST = re.compile(
    # The verbs with which the intents of CoNaLa and CodeAlpaca begin, and those that comments in code do.
    r"""(?:please[ ])?(?:add|append|apply|ask|assign|average|batch|build|cache|calculate|call|cast|change|check|choose
    |chunk|clean|clear|collect|combine|compare|compile|compress|compute|concatenate|connect|construct|convert|copy
    |count|create|decode|decompress|deduplicate|define|delete|deserialize|detect|determine|display|divide|download
    |draw|drop|encode|ensure|enumerate|escape|evaluate|execute|expand|extract|fetch|fill|filter|find|flatten|format
    |generate|get|group|handle|hash|implement|import|increment|initiali[sz]e|insert|intersect|invert|iterate|join
    |list|load|log|look[ ]up|loop|make|map|match|measure|merge|modify|move|multiply|normali[sz]e|open|order|parse
    |partition|pick|plot|pop|prepare|print|process|produce|prompt|put|query|raise|read|receive|remove|rename|render
    |repeat|replace|request|reset|resize|resolve|retrieve|return|reverse|rotate|round|run|sample|save|scan|search
    |select|send|seriali[sz]e|set|show|shuffle|simulate|skip|sleep|solve|sort|split|start|stop|store|strip|substitute
    |subtract|sum|swap|take|tokeni[sz]e|train|transform|translate|transpose|traverse|trim|truncate|try|turn|unpack
    |unzip|update|upload|use|validate|verify|wait|walk|wrap|write|yield|zip
    |(?:an?[ ]|the[ ])?(?:function|method|class|helper|script|decorator|generator)[ ](?:to|that|which|for|returning))
    [ ,]""",
    re.IGNORECASE | re.VERBOSE,
)
_TO_DO = re.compile(r"(?:todo|implement me)\b(?:\([^)]*\))?[:\s-]*", re.IGNORECASE)
_NOT_FOR_PEOPLE = re.compile(
    r"""!|-\*-|[$%@]|(?:type|noqa|nosec|pragma|pylint|flake8|ruff|mypy|pyright|fmt|isort|yapf|coding|vim?|region
    |endregion|copyright|licen[cs]ed?|spdx|author|version|note|nb|warning|hack|xxx|see|https?)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_FOR_TOOLS = re.compile(
    r"""!|%%|%[a-z_]|-\*-|@ts-|\+build[ ]|spdx-|no(?:qa|sec|lint)\b|(?:es|ts|js)lint-|prettier-|clang-format[ ]
    |(?:coding|vim?|type|pragma|pylint|flake8|ruff|mypy|pyright|fmt|isort|yapf|go|rubocop|frozen_string_literal)[:=]""",
    re.IGNORECASE | re.VERBOSE,
)
"""What no sentence goes on with, not even where a line of it begins with the name of a tool."""
_HEADER = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]", re.MULTILINE)
_DOCSTRING = re.compile(
    r"""(?:\A|(?<=\n))(?P<outer>[ \t]*)
    (?P<signature>(?:async[ \t]+)?def[ \t][^\n:(]*\([^()]*(?:\([^()]*\)[^()]*)*\)[^\n:]*):[ \t]*(?:\#[^\n]*)?\n+
    (?P<indentation>[ \t]+)[rRuU]?(?P<quote>"{3}|'{3})(?P<text>(?:\\.|(?!(?P=quote)).)+)(?P=quote)\Z""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Intent:
    """A sentence that asks for code: in the document at the cursor, or given by the request."""

    sentence: str
    indentation: str = ""
    """White space that the code's first line begins with."""
    lead: str = ""
    """What must be inserted before the code: a line end and the indentation, where the cursor ends the sentence."""
    alone: bool = False
    """Whether the document holds nothing but comments."""
    given: bool = False
    """Whether the request gives it."""

    @property
    def answered_by(self) -> Task:
        """The task whose prompt and adapter answer it.

        A sentence at a cursor stands in a file, and what is to be written below it belongs to that file: it is answered
        by filling in, which sees all of it. Where there is nothing but comments, filling in only finds more of them.
        """
        return Task.INTENT if self.given or self.alone else Task.FILL


def find_intent(request: CompleteRequest, document: Document) -> Intent | None:
    """The sentence that a request is answered from: its own, or one at the cursor; None where it is to fill a hole.

    Raises InvalidInput when INTENT is asked for without a sentence in the request or at the cursor.
    """
    if request.task is Task.FILL:
        return None
    if sentence := request.intent.strip():
        return Intent(sentence, given=True)
    found = intent_at_cursor(document)
    if found is None and request.task is not None:
        raise InvalidInput(
            "no sentence to write code from",
            why="`intent` is empty, and no comment or docstring at the cursor asks for code",
            fix='Give one, e.g. peft-daemon generate "parse an ISO date"',
        )
    return found


def intent_at_cursor(document: Document) -> Intent | None:
    """The request in a comment or docstring at the cursor, if there is one and its code is not there yet."""
    if document.line_after.strip() or not rules_of(document.language).line_comment:
        return None
    found = _in_comment(document) or (_in_docstring(document) if document.language == "python" else None)
    return None if found is None or _answered(document, found) else found


def asks_for_code(sentence: str) -> bool:
    """Whether a comment's text is a request, not a description, a switch, a licence or code."""
    if _NOT_FOR_PEOPLE.match(sentence):
        return False
    to_do = _TO_DO.match(sentence)
    sentence = sentence[to_do.end() :] if to_do else sentence
    if len(re.findall(r"[^\W\d_]+", sentence)) < LEAST_WORDS or _is_code(sentence):
        return False
    return to_do is not None or _REQUEST.match(sentence) is not None


def _in_comment(document: Document) -> Intent | None:
    """The request in the block of comment lines that ends at the cursor or on the line above it."""
    mark = rules_of(document.language).line_comment
    at_end = document.line_before.lstrip().startswith(mark)
    block = [document.line_before] if at_end else []
    above = document.prefix[: document.line_start].split("\n")[:-1]
    while above and _continues_up(above[-1], mark) and len(block) <= MOST_LINES:
        block.insert(0, above.pop())
    if not block or len(block) > MOST_LINES or (document.line_before.strip() and not at_end):
        return None
    indentation = leading_space(block[-1])
    aligned = all(leading_space(line) == indentation for line in block)
    in_place = at_end or document.line_before in ("", indentation)
    sentence = " ".join(line.strip().lstrip(mark).strip() for line in block).strip()
    if not (aligned and in_place and asks_for_code(sentence)):
        return None
    if scan("\n".join(above), document.language).state.string:
        return None
    return Intent(
        _TO_DO.sub("", sentence, count=1),
        indentation,
        f"\n{indentation}" if at_end else "",
        alone=_only_comments(document, mark),
    )


def _continues_up(line: str, mark: str) -> bool:
    """Whether a line belongs to the comment below it: not if it is for tools, as a shebang or a linter's switch is."""
    comment = line.lstrip()
    return comment.startswith(mark) and not _FOR_TOOLS.match(comment.lstrip(mark).lstrip())


def _only_comments(document: Document, mark: str) -> bool:
    lines = (document.prefix + document.suffix).split("\n")
    return all(line.lstrip().startswith(mark) or not line.strip() for line in lines)


def _in_docstring(document: Document) -> Intent | None:
    """The first paragraph of the docstring right above the cursor, with the function's signature."""
    at_end = bool(document.line_before.strip())
    prefix = document.prefix.rstrip()
    if not prefix.endswith(('"""', "'''")) or (at_end and prefix != document.prefix):
        return None
    # From the last ``def`` on: a search from an earlier one would run across functions.
    headers = list(_HEADER.finditer(prefix))
    found = _DOCSTRING.match(prefix, headers[-1].start()) if headers else None
    if not found or width(found["indentation"]) <= width(found["outer"]):
        return None
    indentation = found["indentation"]
    paragraph = " ".join(re.split(r"\n\s*\n", found["text"].strip(), maxsplit=1)[0].split())
    if (not at_end and document.line_before not in ("", indentation)) or len(paragraph.split()) < 2:
        return None
    signature = " ".join(found["signature"].split())
    return Intent(f"{signature}: {paragraph}", indentation, f"\n{indentation}" if at_end else "")


def _answered(document: Document, found: Intent) -> bool:
    """Whether code of the same block follows directly: what the sentence is about, as likely as not."""
    directly = document.suffix.split("\n", 2)[1:2]
    below = directly[0] if directly and directly[0].strip() else ""
    if not below and '"' in document.previous_line[-3:] + document.line_before[-3:] and document.next_lines:
        below = document.next_lines[0]  # a function's body may begin after a blank line
    return bool(below) and width(leading_space(below)) >= width(found.indentation)


def _is_code(sentence: str) -> bool:
    """Whether a comment is code taken out of use."""
    try:
        return bool(ast.parse(sentence).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
