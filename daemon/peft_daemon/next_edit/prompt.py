"""The prompt of a next edit: the document, its history, and the lines that the model is to write again.

What changes least comes first, so that the engine has it in its KV cache: the document around the window as it was
before the history, cut in steps; then the edits, of which new ones come last; then the window. Secrets are masked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from peft_core.code.edits import Lines, join_lines
from peft_core.privacy.values import masked
from peft_daemon.completion.prompt import append_segment
from peft_daemon.engines.base import Prompt, Segment
from peft_daemon.next_edit.formats import EditField, EditFormat, EditPiece
from peft_daemon.next_edit.moment import KnownEdit, Moment
from peft_daemon.next_edit.places import Place

FILE_STEP_LINES = 32
"""The shown part of a document begins and ends at multiples of it, and moves by it."""
MOST_FILE_LINES = 96
MOST_FILE_CHARACTERS = 3_000
"""About 900 tokens; on two cores that is read once, in seconds, and then kept."""
MOST_SHOWN_EDITS = 6
"""The newest; as many as Sweep's models were trained with."""
CONTEXT_LINES = 1
"""Lines shown above and below an edit of the history."""


def edit_prompt(
    moment: Moment, place: Place, form: EditFormat, *, root: str = "", most_characters: int = MOST_FILE_CHARACTERS
) -> Prompt:
    """Return the prompt that asks for the lines of ``place``; paths are shown relative to ``root``.

    ``most_characters`` is the most of the document that is shown around the window.
    """
    path = shown_path(moment.path, root)
    fields: dict[EditField, str] = {
        EditField.PATH: path,
        EditField.FIRST: str(place.start + 1),
        EditField.LAST: str(place.end),
        EditField.CURRENT: _current(moment, place, form.cursor),
    }
    if EditField.ORIGINAL in form.fields:
        fields[EditField.ORIGINAL] = join_lines(_original(moment, place))
    if EditField.FILE in form.fields:
        fields[EditField.FILE] = _file(moment, place, most_characters)
    if EditField.ABOVE in form.fields:
        first, last = _shown_lines(len(moment.lines), place)
        fields[EditField.ABOVE] = _limited(moment.lines[first : place.start], most_characters, keep_end=True)
        fields[EditField.BELOW] = _limited(moment.lines[place.end : last], most_characters, keep_end=False)
    past = [
        _filled(form.past_pieces, _past_fields(each, moment, root))
        for each in [each for each in moment.edits if not each.change.is_blank][-MOST_SHOWN_EDITS:]
    ]
    segments: list[Segment] = []
    for piece in form.pieces:
        if piece is EditField.HISTORY:
            for number, each in enumerate(past):
                if number and form.joined:
                    append_segment(segments, Segment(form.joined))
                for segment in each:
                    append_segment(segments, segment)
        else:
            for segment in _filled((piece,), fields):
                append_segment(segments, segment)
    if form.opening:
        append_segment(segments, Segment(form.opening))
    return tuple(segments)


def answer_text(lines: Lines, form: EditFormat) -> str:
    """Return how a window of these lines is written as an answer, behind the format's opening."""
    return join_lines(lines) + form.closing


def shown_path(path: str, root: str) -> str:
    """Return a path as the model sees it: relative to its repository, without what names the user."""
    plain = PurePosixPath(path.replace("\\", "/"))
    base = PurePosixPath(root.replace("\\", "/")) if root else None
    if base is not None and plain.is_relative_to(base):
        return str(plain.relative_to(base))
    return str(plain) if not plain.is_absolute() else plain.name


def _filled(pieces: Iterable[EditPiece], fields: Mapping[EditField, str]) -> list[Segment]:
    found = (Segment(masked(fields[each])) if isinstance(each, EditField) else each for each in pieces)
    return [each for each in found if each.text]


def _past_fields(edit: KnownEdit, moment: Moment, root: str) -> Mapping[EditField, str]:
    change = edit.change
    above = below = Lines()
    if edit.here:
        above = moment.lines[max(0, change.start - CONTEXT_LINES) : change.start]
        below = moment.lines[change.new_end : change.new_end + CONTEXT_LINES]
    old, new = (*above, *change.old, *below), (*above, *change.new, *below)
    first = change.start - len(above) + 1
    removed, added = _behind("-", change.old), _behind("+", change.new)
    return {
        EditField.PATH: shown_path(edit.path, root),
        EditField.FIRST: str(first),
        EditField.LAST: str(first + max(0, len(new) - 1)),
        EditField.OLD: join_lines(old) or "\n",
        EditField.NEW: join_lines(new) or "\n",
        EditField.REMOVED: removed,
        EditField.ADDED: added,
        EditField.DIFF: _behind(" ", above) + removed + added + _behind(" ", below),
        EditField.OLD_COUNT: str(len(old)),
        EditField.NEW_COUNT: str(len(new)),
    }


def _behind(mark: str, lines: Lines) -> str:
    return "".join(f"{mark}{line}\n" for line in lines)


def _current(moment: Moment, place: Place, cursor: str) -> str:
    lines = list(moment.lines[place.start : place.end])
    if place.start <= moment.line < place.end:
        line = lines[moment.line - place.start]
        lines[moment.line - place.start] = line[: moment.column] + cursor + line[moment.column :]
    return join_lines(lines)


def _original(moment: Moment, place: Place) -> Lines:
    """Return the lines of the window as they were before the history."""
    return moment.before[moment.line_before(place.start) : moment.line_before(place.end)]


def _file(moment: Moment, place: Place, most_characters: int) -> str:
    before = moment.before
    first, last = _shown_lines(len(before), Place(moment.line_before(place.start), moment.line_before(place.end), ""))
    return _limited(before[first:last], most_characters, keep_end=False)


def _shown_lines(length: int, place: Place) -> tuple[int, int]:
    """Return which lines around a window are shown: whole steps, so that they stay the same while it moves little."""
    block = place.start // FILE_STEP_LINES
    first = max(0, (block - 1) * FILE_STEP_LINES)
    return first, min(length, max(first + MOST_FILE_LINES, place.end))


def _limited(lines: Lines, room: int, *, keep_end: bool) -> str:
    """Return lines as a text of at most ``room`` characters; those at one end are left out."""
    kept = []
    for line in reversed(lines) if keep_end else lines:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    return join_lines(kept[::-1] if keep_end else kept)
