"""Nothing that a stranger wrote steers the terminal on which it is shown."""

from __future__ import annotations

import re

import pytest

from peft_cli.terminal import _ON_ERRORS, _ON_OUTPUT, REPLACEMENT, TerminalText, plain

HOSTILE = {
    "a title": "\x1b]0;title\x07",
    "the clipboard": "\x1b]52;c;cm0gLXJmIH4=\x07",
    "the screen cleared": "\x1b[2J\x1b[H",
    "a question that is answered by typing": "\x1b[6n\x1bP$q\x1b\\",
    "the same in 8 bits": "\x9b2J\x9d0;x\x9c",
    "backspaces": "safe\b\b\b\bevil",
    "direction turned around": "\u202eevil\u2066",
    "a line overwritten": "evil\rgood",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_terminal_would_obey_is_shown_instead(name: str) -> None:
    stream = Written()
    TerminalText(stream, _ON_OUTPUT).write(HOSTILE[name])
    for shown in (plain(HOSTILE[name]), stream.text):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
        assert REPLACEMENT in shown


def test_an_escape_that_is_cut_between_two_pieces_is_none() -> None:
    stream = Written()
    output = TerminalText(stream, _ON_OUTPUT)
    output.writelines(["\x1b", "[2J"])
    assert stream.text == f"{REPLACEMENT}[2J"


def test_text_colours_and_progress_bars_stay() -> None:
    text = "def f():\n\treturn 'ä→日本'\r\n\x1b[1;31mred\x1b[0m"
    output, errors = Written(), Written()
    TerminalText(output, _ON_OUTPUT).write(text)
    TerminalText(errors, _ON_ERRORS).write(f"{text}\r\x1b[2K\x1b[1A\x1b[?25l")
    assert output.text == text
    assert errors.text == f"{text}\r\x1b[2K\x1b[1A\x1b[?25l"
    assert plain("def f():\n\treturn 1\r\n") == "def f():\n\treturn 1\r\n"


class Written:
    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)
