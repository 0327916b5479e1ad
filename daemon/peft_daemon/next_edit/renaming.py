"""Next edits that need no model: the uses of what the user gave another name.

Where an edit gave the function, class, parameter or variable that its line defines another name, the lines that use
the old one are likely to get the new one: the nearest of them is suggested. Names only: what stands in comments and
strings is left alone. Of a parameter or a variable, the uses are those in the same block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher

from peft_core.code.edits import LineChange, join_lines
from peft_core.code.lexer import LexerState, scan
from peft_daemon.next_edit.moment import KnownEdit, Moment

MIN_NAME = 3
"""Characters of a name; shorter ones mean something else elsewhere."""
_TOKEN = re.compile(r"[A-Za-z_$][\w$]*|\s+|.")
_DEFINED = r"(?:def|class|func|function|fn|type|struct|interface|enum|trait|record|impl|mod|macro)"
_DEFINITION = re.compile(rf"\b{_DEFINED}\s+(?:\([^()]*\)\s*)?([A-Za-z_$][\w$]*)")
_HEAD = re.compile(rf"\b{_DEFINED}\b[^(]*\((.*)")
_PARAMETER = re.compile(r"(?:^|[(,])\s*(?:\*{0,2}|&|mut |final |readonly )*([A-Za-z_$][\w$]*)\s*(?=[:,)=?\s]|$)")
_VARIABLE = re.compile(r"^\s*(?:let|const|var|val|mut|final|static|\s)*([A-Za-z_$][\w$]*)\s*(?::[^=]*)?(?::=|=(?!=))")


@dataclass(frozen=True)
class _Definition:
    """A name that was changed where it is defined."""

    old: str
    new: str
    line: int
    """Of the definition."""
    everywhere: bool
    """It is known in the whole document, not in its block alone."""


def renamed_words(change: LineChange) -> Mapping[str, str]:
    """Return the words that a change replaced by others wherever its lines had them; empty if it did more."""
    old, new = (_TOKEN.findall("\n".join(side)) for side in (change.old, change.new))
    words: dict[str, str] = {}
    for tag, old_start, old_end, new_start, new_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        before, after = old[old_start:old_end], new[new_start:new_end]
        if tag != "replace" or len(before) != len(after):
            return {}
        for one, other in zip(before, after, strict=True):
            if one == other:
                continue
            if not (one.isidentifier() and other.isidentifier() and words.setdefault(one, other) == other):
                return {}
    return {} if set(words) & set(new) or any(len(each) < MIN_NAME for each in words) else words


def renaming(moment: Moment) -> LineChange | None:
    """Return the nearest line that uses the old name of what was renamed, with the new one; None if there is none.

    Lines below the cursor come before those above it.
    """
    for edit in reversed(moment.edits):
        found = _definition(moment, edit) if edit.here else None
        uses = _uses(moment, found) if found is not None else {}
        if uses:
            at = min(uses, key=lambda line: (line <= moment.line, abs(line - moment.line)))
            return LineChange(at, (moment.lines[at],), (uses[at],))
    return None


def _definition(moment: Moment, edit: KnownEdit) -> _Definition | None:
    words = renamed_words(edit.change)
    if len(words) != 1:
        return None
    ((old, new),) = words.items()
    for at, line in enumerate(edit.change.new, edit.change.start):
        if (whole := _DEFINITION.search(line)) is not None and whole[1] == new:
            return _Definition(old, new, at, everywhere=True)
        if (head := _HEAD.search(line)) is not None and new in _PARAMETER.findall(head[1]):
            return _Definition(old, new, at, everywhere=False)
        if (variable := _VARIABLE.match(line)) is not None and variable[1] == new:
            return _Definition(old, new, at, everywhere=False)
    return None


def _reach(moment: Moment, found: _Definition) -> Iterator[int]:
    """Yield the lines in which the name is known, without those that the history has."""
    changed = [each.change for each in moment.edits if each.here]
    if found.everywhere:
        lines = range(len(moment.lines))
    else:
        end = found.line + 1
        own = _indentation(moment.lines[found.line])
        is_head = _HEAD.search(moment.lines[found.line]) is not None
        while end < len(moment.lines) and (
            not moment.lines[end].strip()
            or _indentation(moment.lines[end]) > own
            or (not is_head and _indentation(moment.lines[end]) == own)
        ):
            end += 1
        lines = range(found.line + 1, end)
    return (at for at in lines if not any(each.start <= at < each.new_end for each in changed))


def _uses(moment: Moment, found: _Definition) -> Mapping[int, str]:
    """Return the lines in whose code the old name stands, each with the new one."""
    name = re.compile(rf"(?<![\w$]){re.escape(found.old)}(?![\w$])")
    candidates = [at for at in _reach(moment, found) if name.search(moment.lines[at])]
    uses: dict[int, str] = {}
    scanned, state = 0, LexerState()
    for at in candidates:
        state = scan(join_lines(moment.lines[scanned:at]), moment.language, state).state
        scanned = at
        if (line := _renamed(moment, at, state, name, found.new)) is not None:
            uses[at] = line
    return uses


def _renamed(moment: Moment, at: int, state: LexerState, name: re.Pattern[str], new: str) -> str | None:
    """Return a line, which begins in ``state``, with the new name; None where the old is not used in its code."""
    line, parts, begin = moment.lines[at], [], 0
    for match in name.finditer(line):
        before = line[: match.start()]
        # A member or a word of another name's path is something else.
        if scan(before, moment.language, state).state.code and not before.rstrip().endswith((".", "::", "->")):
            parts += [line[begin : match.start()], new]
            begin = match.end()
    return "".join((*parts, line[begin:])) if parts else None


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())
