"""Next edits in real Neovims: shown, jumped to, applied as one undo step, refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support.editor_drivers import neovim
from support.neovim import Neovim

pytestmark = [pytest.mark.model, pytest.mark.neovim]

TEXT = """\
def scaled(count):
    factor = 3
    return factor * count


print(scaled(2))
"""
RENAMED = TEXT.replace("(count)", "(amount)")
DONE = RENAMED.replace("* count", "* amount")
INIT = """
require("peft-daemon").setup({ next_edits = true, auto = false, settings = { eagerness = "all" } })
vim.keymap.set({ "n", "i" }, "<M-n>", "<Plug>(peft-daemon-next-edit)")
"""
SHOWN = "luaeval('require(\"peft-daemon\").visible_next_edit() ~= nil')"


@pytest.fixture(params=["0.11", "0.12"])
def vim(request: pytest.FixtureRequest, environ: Mapping[str, str], tmp_path: Path) -> Iterator[Neovim]:
    """A Neovim in which the parameter of a function was just renamed, in Normal mode."""
    file = tmp_path / "demo.py"
    file.write_text(TEXT)
    opened = Neovim(neovim(request.param), file, environ, INIT)
    try:
        opened.ready()
        opened.keys("gg0f(lciwamount<Esc>")
        yield opened
    finally:
        opened.close()


def text_of(vim: Neovim) -> str:
    return "".join(f"{line}\n" for line in vim.lua("vim.api.nvim_buf_get_lines(0, 0, -1, false)"))


def marks(vim: Neovim) -> list[str]:
    """The groups that lines are drawn in, and the virtual lines."""
    found: list[str] = vim.lua(
        "vim.iter(vim.api.nvim_buf_get_extmarks(0, vim.api.nvim_get_namespaces().peft_daemon_next_edit, 0, -1, "
        "{ details = true })):map(function(mark) return mark[4].hl_group or mark[4].virt_lines[1][1][1] end):totable()"
    )
    return found


def test_a_use_of_a_renamed_parameter_is_jumped_to_and_applied_as_one_undo_step(vim: Neovim) -> None:
    vim.wait(SHOWN)
    assert vim.lua("require('peft-daemon').visible_next_edit()") == {
        "row": 2,
        "old": ["    return factor * count"],
        "new": ["    return factor * amount"],
    }
    assert sorted(marks(vim)) == ["    return factor * amount", "PeftDaemonEditOld"]
    vim.keys("<M-n>")
    vim.wait("line('.') == 3")
    assert text_of(vim) == RENAMED
    vim.keys("<M-n>")
    vim.wait("getline(3) ==# '    return factor * amount'")
    assert text_of(vim) == DONE
    assert marks(vim) == []
    vim.keys("u")
    vim.wait("getline(3) ==# '    return factor * count'")
    assert text_of(vim) == RENAMED


def test_escape_refuses_it_and_is_escape_again_afterwards(vim: Neovim) -> None:
    vim.wait(SHOWN)
    vim.keys("<Esc>")
    vim.wait(f"!{SHOWN}")
    assert vim.value("maparg('<Esc>', 'n')") == ""
    vim.keys("i<Esc>")  # asks again
    vim.wait("luaeval('require(\"peft-daemon\").is_asking_next_edit()') == v:false")
    assert not vim.lua("require('peft-daemon').visible_next_edit() ~= nil")
    vim.keys("<M-n>")
    vim.wait(SHOWN)
    assert text_of(vim) == RENAMED


def test_another_change_takes_it_away_and_the_health_check_tells_that_they_are_on(vim: Neovim) -> None:
    vim.wait(SHOWN)
    vim.keys("GOx = 1<Esc>kdd")
    vim.wait("getline('$') ==# 'print(scaled(2))'")
    assert text_of(vim).startswith(RENAMED[:40])
    vim.keys(":checkhealth peft-daemon<CR>")
    vim.wait("search('next edits are on') > 0")
