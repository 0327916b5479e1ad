"""Real Neovims: what is their own besides what every editor does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.editor_drivers import NeovimVersion, neovim_version
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


@pytest.fixture(scope="session", params=["0.11", "0.12"])
def version(request: pytest.FixtureRequest) -> NeovimVersion:
    """Both ways in which Neovim shows ghost text."""
    return neovim_version(request.param)


@pytest.fixture
def edit(version: NeovimVersion, environ: Mapping[str, str], tmp_path: Path) -> Iterator[Edit]:
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


def test_ghost_text_grows_without_a_key_to_what_the_model_wrote(
    version: NeovimVersion, environ: Mapping[str, str], tmp_path: Path
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
    version: NeovimVersion, edit: Edit, environ: Mapping[str, str]
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


def test_a_line_with_emoji_survives_an_accepted_suggestion(version: NeovimVersion, edit: Edit) -> None:
    neovim, file = edit('face = "😀"\nprint("😀" + fa\n')
    neovim.keys(f"2G{version.ask}")
    neovim.wait(version.shows("ce"))
    neovim.keys("<Tab>")
    neovim.wait("getline(2) =~# 'face'")
    neovim.keys("<Esc>:write<CR>")
    neovim.wait("!&modified")
    assert file.read_text().startswith('face = "😀"\nprint("😀" + face')


def test_several_lines_accepted_in_a_file_of_windows_get_its_line_ends(version: NeovimVersion, edit: Edit) -> None:
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
