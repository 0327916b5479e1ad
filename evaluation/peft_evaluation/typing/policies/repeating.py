"""When llama.vscode throws a suggestion away: it is empty, or says what stands there already.

Re-created from completion.ts (shouldDiscardSuggestion).
"""

from __future__ import annotations

from collections.abc import Sequence

from peft_evaluation.typing.policies.lines import Around


def repeats(lines: Sequence[str], around: Around) -> bool:
    """Whether suggested lines are not worth showing."""
    if not lines or (len(lines) == 1 and not lines[0].strip()):
        return True
    below = around.lines[around.line + 1 :]
    return bool(below) and (_what_follows(lines, below, around) or _next_line(lines, below, around))


def _what_follows(lines: Sequence[str], below: Sequence[str], around: Around) -> bool:
    """The rest of the cursor's line once more, and then the lines below it."""
    if len(lines) == 1:
        return lines[0] == around.behind
    return lines[0].strip() in ("", around.behind.strip()) and _begins(below, lines[1:])


def _next_line(lines: Sequence[str], below: Sequence[str], around: Around) -> bool:
    """The cursor's line would become the next one that is not empty, and what comes after that as well."""
    first = next((index for index, line in enumerate(below) if line.strip()), None)
    if first is None or around.before + lines[0] != below[first]:
        return False
    following = below[first + 1 :]
    if len(lines) == 2:
        return bool(following) and following[0].startswith(lines[1])
    return _begins(following, lines[1:])


def _begins(lines: Sequence[str], wanted: Sequence[str]) -> bool:
    return tuple(lines[: len(wanted)]) == tuple(wanted)
