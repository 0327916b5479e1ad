"""What models, servers and files of strangers wrote is shown on a terminal as text, and never steers it.

A terminal obeys control characters: they move the cursor over what was written, set its title, fill the clipboard, or
make it type an answer. Here each one is shown as �. What goes to a file or to another program stays as it is.
"""

from __future__ import annotations

import re
import sys
from typing import Any

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_CONTROLS = r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
"""All but tab, line ends and escape; also those that turn the direction of text around."""
_LONE_RETURN = r"\r(?!\n)"
_COLOURS = r"\[[0-9;]*m"
_PROGRESS = r"\[(?:[0-9;]*m|[0-9]*[AK]|\?25[lh])"
"""What a progress bar needs besides: a line up, the line cleared, the cursor hidden and shown."""
_ALL = re.compile(rf"{_CONTROLS}|\x1b|{_LONE_RETURN}")
_ON_OUTPUT = re.compile(rf"{_CONTROLS}|\x1b(?!{_COLOURS})|{_LONE_RETURN}")
_ON_ERRORS = re.compile(rf"{_CONTROLS}|\x1b(?!{_PROGRESS})")


def plain(text: str) -> str:
    """Return a stranger's text without anything that a terminal obeys, colours included."""
    return _ALL.sub(REPLACEMENT, text)


class TerminalText:
    """A stream of text to a terminal that obeys only colours, and on standard error what progress bars need."""

    def __init__(self, stream: Any, obeyed_not: re.Pattern[str]) -> None:
        self._stream, self._obeyed_not = stream, obeyed_not

    def write(self, text: str) -> int:
        """Write the text, each control character as �."""
        self._stream.write(self._obeyed_not.sub(REPLACEMENT, text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write the lines, each control character as �."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def protect_terminal() -> None:
    """Keep what this process writes from steering the terminal, where it writes to one."""
    for name, pattern in (("stdout", _ON_OUTPUT), ("stderr", _ON_ERRORS)):
        stream = getattr(sys, name)
        if stream is not None and stream.isatty():
            setattr(sys, name, TerminalText(stream, pattern))
