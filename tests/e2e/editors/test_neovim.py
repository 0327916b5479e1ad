"""Real Neovims: what is their own besides what every editor does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from support.editor_drivers import neovim
from support.neovim import VISIBLE, Neovim
from support.running_daemon import run_cli
from support.waiting import wait_until

pytestmark = [pytest.mark.model, pytest.mark.neovim]

SUM = """\
def total(numbers):
    result = 0
    for number in numbers:
        result += number
    return result


"""
PRODUCT = """\
def product(numbers):
    result = 1
    for number in numbers:
        result *= number
    return result"""
VERSIONS = ["0.11", "0.12"]
# Shown as soon as it begins, so that it grows; with a mapping that a user might have, and with Neovim 0.12's own ghost
# text for all servers.
INIT = """
if vim.lsp.inline_completion then
  vim.lsp.inline_completion.enable()
end
require("peft-daemon").setup({ settings = { showAfterMs = 1, timeBudgetMs = 120000 } })
vim.keymap.set("i", "<M-Right>", "mine")
"""
Edit = Callable[[str], Path]


@pytest.fixture(scope="module", params=VERSIONS)
def vim(
    request: pytest.FixtureRequest, environ: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Neovim]:
    """One Neovim of each version, in which all stories open files of their own."""
    file = tmp_path_factory.mktemp("first") / "first.py"
    file.write_text(SUM)
    opened = Neovim(neovim(request.param), file, environ, INIT)
    try:
        opened.ready()
        yield opened
    finally:
        opened.close()


@pytest.fixture
def edit(vim: Neovim, tmp_path: Path) -> Edit:
    """Opens a file with this text."""
    numbers = count()

    def open_file(text: str) -> Path:
        file = tmp_path / f"demo{next(numbers)}.py"
        file.write_bytes(text.encode())
        vim.open(file)
        return file

    return open_file


def text_of(vim: Neovim) -> str:
    return "\n".join(vim.lua("vim.api.nvim_buf_get_lines(0, 0, -1, false)"))


def visible(vim: Neovim) -> Any:
    """What accepting would insert, or None."""
    return vim.lua("require('peft-daemon').visible()")


def screen(vim: Neovim) -> list[str]:
    """The rows that are shown."""
    return [str(row) for row in vim.lua(READ_SCREEN)]


READ_SCREEN = (
    '(function() vim.cmd.redraw() local rows = {} for row = 1, vim.o.lines do local cells = "" '
    "for column = 1, vim.o.columns do cells = cells .. vim.fn.screenstring(row, column) end "
    "rows[row] = cells end return rows end)()"
)


def test_ghost_text_grows_and_is_accepted_by_word_and_by_line_each_an_undo_step(vim: Neovim, edit: Edit) -> None:
    edit(SUM)
    vim.keys("Godef product(numbers):<CR>")
    vim.shows("return result")
    assert SUM + PRODUCT.partition("\n")[0] in text_of(vim)
    vim.keys("<M-Right>")
    vim.wait("getline('.') ==# '    result'")
    vim.shows("return result")
    vim.keys("<M-C-Right>")
    vim.wait("getline('.') ==# '    result = 1'")
    vim.shows("return result")
    vim.keys("<Tab>")
    vim.wait("getline('.') ==# '    return result'")
    vim.keys("  # typed<Esc>")
    assert text_of(vim) == f"{SUM}{PRODUCT}  # typed"
    for left in ("    return result", "    result = 1", "    result", "def product(numbers):"):
        vim.keys("u")
        vim.wait(f"getline(prevnonblank(line('$'))) ==# '{left}'")


def test_a_key_does_what_it_did_before_unless_a_suggestion_is_shown(vim: Neovim, edit: Edit) -> None:
    edit("")
    vim.keys("i<M-Right><Tab>x<Esc>")
    vim.wait("getline(1) =~# '^mine *x'")
    edit("")
    vim.keys("i<C-o>:lua vim.snippet.expand('f($1, $2)')<CR>a<Tab>b<Esc>")
    vim.wait("getline(1) ==# 'f(a, b)'")
    vim.keys(":lua vim.snippet.stop()<CR>")
    edit(SUM)
    vim.keys(":inoremap <lt>buffer> <lt>Tab> own<CR>Godef product(numbers):<CR>")
    vim.shows("return result")
    vim.keys("<Tab>")
    vim.wait("getline('.') =~# 'return result'")
    vim.keys("<CR><CR>")
    vim.wait(f"{VISIBLE} is v:null")
    vim.keys("# <C-]><Tab><Esc>")
    vim.wait("getline('.') =~# 'own$'")


def test_what_the_window_has_no_room_for_is_counted_and_not_accepted(vim: Neovim, edit: Edit) -> None:
    edit(SUM)
    vim.keys(":botright 4split<CR>Godef product(numbers):<CR>")
    try:
        vim.wait(f"stridx(join(luaeval('{READ_SCREEN.replace(chr(39), chr(39) * 2)}')), '… 3 more lines') >= 0")
        assert visible(vim) == "result = 1"
        vim.keys("<Tab>")
        vim.wait("getline('.') ==# '    result = 1'")
        vim.shows("return result")
        rows = [row.strip() for row in screen(vim)]
        assert rows[rows.index("result = 1") :][:4] == [line.strip() for line in PRODUCT.splitlines()[1:]]
        vim.keys("<Tab>")
        vim.wait("getline('.') ==# '    return result'")
        assert text_of(vim) == SUM + PRODUCT
    finally:
        vim.keys("<Esc>:only!<CR>")


def test_a_line_that_is_wider_than_the_window_is_folded_into_it(vim: Neovim, edit: Edit) -> None:
    edit(SUM)
    vim.keys(":botright vertical 20split<CR>Godef product(numbers):<CR>")
    try:
        vim.shows("return result")
        narrow = "".join(row[-20:] for row in screen(vim))
        assert narrow.count("    for number in numbers:") == 2
    finally:
        vim.keys("<Esc>:only!<CR>")


def test_a_refused_suggestion_is_gone_and_does_not_come_back_there(vim: Neovim, edit: Edit) -> None:
    edit(SUM)
    vim.keys("Godef product(numbers):<CR>")
    vim.shows("return result")
    vim.keys("<C-]>")
    vim.wait(f"{VISIBLE} is v:null")
    vim.keys("x<BS>")
    wait_until(lambda: "you refused" in vim.value("execute('PeftDaemonWhy') .. execute('messages')"), vim.report)
    assert visible(vim) is None
    vim.keys("<M-Bslash>")  # asked for by hand it is answered
    vim.shows("return result")


def test_alternatives_are_shown_one_after_the_other(vim: Neovim, edit: Edit) -> None:
    edit(SUM)
    whole = "{ settings = { showAfterMs = 0, timeBudgetMs = 120000 } }"
    vim.keys(f":lua require('peft-daemon').setup({whole})<CR>Goname = <M-Bslash>")
    vim.wait(f"{VISIBLE} isnot v:null")
    seen = {visible(vim)}

    def another() -> bool:
        vim.keys("<M-]>")
        vim.wait("luaeval('require(\"peft-daemon\").is_asking()') is v:false")
        seen.add(visible(vim))
        return len(seen) > 1

    # A machine that is busy may have no time for a second one.
    wait_until(another, "another alternative")
    assert None not in seen
    vim.keys(f"<Esc>:lua require('peft-daemon').setup({whole.replace('showAfterMs = 0', 'showAfterMs = 1')})<CR>")


def test_neovim_s_own_ghost_text_leaves_these_to_the_plugin(vim: Neovim, edit: Edit) -> None:
    edit(SUM)
    vim.keys("Godef product(numbers):<CR>")
    vim.shows("return result")
    own = "nvim_buf_get_extmarks(0, nvim_create_namespace('nvim.lsp.inline_completion'), 0, -1, {})"
    vim.keys("<Esc>A")  # it waits for a moment before it asks, so it had the time of this second request
    vim.wait(f"{VISIBLE} isnot v:null")
    assert vim.value(f"len({own})") == "0"
    client = "{ client_id = vim.lsp.get_clients({ bufnr = 0 })[1].id }"
    assert not vim.lua(f"vim.lsp.inline_completion ~= nil and vim.lsp.inline_completion.is_enabled({client})")


def test_an_accepted_suggestion_is_recorded_as_accepted(vim: Neovim, edit: Edit, environ: Mapping[str, str]) -> None:
    edit("def sub(a, b):\n    return \n")
    run_cli("feedback", "clear", "--yes", environment=environ)
    vim.keys("2GA")
    vim.shows("a - b")
    vim.keys("<Tab>")
    vim.wait("getline('.') =~# 'return a'")
    vim.keys("<Esc>:bwipeout!<CR>")  # the end of a document is the end of what is counted

    def lines() -> list[Any]:
        return list(json.loads(run_cli("feedback", "show", "--json", environment=environ).stdout)["lines"])

    accepted = wait_until(lambda: [line for line in lines() if line["accepted"]], lines, limit_s=60, step_s=0.5)
    assert sum(line["offers"] * line["accepted"] for line in accepted) == 1


def test_a_line_with_emoji_survives_an_accepted_suggestion(vim: Neovim, edit: Edit) -> None:
    file = edit('face = "😀"\nprint("😀" + fa\n')
    vim.keys("2GA<M-Bslash>")
    vim.shows("ce")
    vim.keys("<Tab>")
    vim.wait("getline(2) =~# 'face'")
    vim.keys("<Esc>:write<CR>")
    vim.wait("!&modified")
    assert file.read_text().startswith('face = "😀"\nprint("😀" + face')


def test_several_lines_accepted_in_a_file_of_windows_get_its_line_ends(vim: Neovim, edit: Edit) -> None:
    head = SUM.replace("\n", "\r\n")
    file = edit(head)
    assert vim.value("&fileformat") == "dos"
    vim.keys("Godef product(numbers):<CR>")
    vim.shows("return result")
    vim.keys("<Tab>")
    vim.wait("getline('$') =~# 'return'")
    vim.keys("<Esc>:write<CR>")
    vim.wait("!&modified")
    written = file.read_bytes().decode()
    assert written.startswith(head)
    assert not set("\r\n") & set(written.replace("\r\n", ""))
    names: dict[str, Any] = {}
    exec(compile(written, "written by Neovim", "exec"), names)
    assert names["product"]([2, 3, 4]) == 24


def test_off_is_off_until_asked_and_the_user_is_told_why(vim: Neovim, edit: Edit) -> None:
    edit(SUM)
    vim.keys(":PeftDaemonToggle<CR>")
    vim.wait("luaeval('require(\"peft-daemon\").statusline()') =~# 'off'")
    vim.keys(":messages clear<CR>Godef product(numbers):<CR><M-Bslash>")
    vim.wait("execute('messages') =~# 'off'")  # as the server says where somebody asks
    vim.keys("<Esc>:messages clear<CR>:PeftDaemonWhy<CR>")
    vim.wait("execute('messages') =~# 'off'")
    assert visible(vim) is None
    vim.keys(":PeftDaemonToggle<CR>")
    vim.ready()
    vim.keys("GS")
    vim.shows("return result")


def test_health_is_checked_by_using_the_installation(vim: Neovim, edit: Edit) -> None:
    edit(SUM)
    vim.keys(":checkhealth peft-daemon<CR>")
    vim.wait("join(getline(1, '$')) =~# 'suggest'")
    report = text_of(vim)
    vim.keys(":bwipeout<CR>")
    assert "ERROR" not in report
    assert "sha256 verified" in report
    assert "the language server runs in" in report
    assert "<Tab>: accept while a suggestion is shown, else vim.snippet.jump" in report


@pytest.mark.parametrize("version", VERSIONS)
def test_a_missing_command_is_told_once_with_what_to_type(
    version: str, environ: Mapping[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "demo.py"
    file.write_text(SUM)
    without = {**environ, "PATH": os.defpath, "HOME": str(tmp_path)}
    opened = Neovim(neovim(version), file, without)
    try:
        opened.wait("execute('messages') =~# 'pipx install peft-daemon'")
        opened.keys(f":edit! {tmp_path}/other.py<CR>Goa<Tab>b<Esc>")
        opened.wait("getline('$') =~# 'a.*b'")
        assert opened.value("execute('messages')").count("pipx install") == 1
        opened.keys(":checkhealth peft-daemon<CR>")
        opened.wait("join(getline(1, '$')) =~# 'ERROR the command `peft-daemon` was not found'")
    finally:
        opened.close()
