"""Suggestions in the cells of a notebook: real server, real daemon, a played model."""

from __future__ import annotations

import asyncio
from pathlib import Path

from lsprotocol import types

from peft_core.api_types import Outcome
from peft_daemon.feedback import FeedbackStore
from support.editor import Editor, editor, uri_of
from support.played_daemon import HERE, Played

KEY = "sk" + "_live_4242abcd4242abcd"
LOADING = "import pandas as pd\n%matplotlib inline\n!ls '(\ncustomers = pd.read_csv('customers.csv')"


def notebook(one: Editor, folder: Path, **cells: tuple[str, str]) -> tuple[str, dict[str, str]]:
    """Open a notebook; returns its URI and those of its cells."""
    uri = uri_of(folder / "study.ipynb")
    named = {name: f"{uri.replace('file:', 'vscode-notebook-cell:')}#{name}" for name in cells}
    one.open_notebook(uri, {named[name]: cell for name, cell in cells.items()})
    return uri, named


async def test_a_cell_knows_the_cells_before_it_and_no_key_in_them(played: Played, tmp_path: Path) -> None:
    played.model.answers({"total = ": "customers.revenue.sum()", "select ": "name from customers"})
    async with editor(played.environ, settings={"showAfterMs": 0}, folders=[uri_of(tmp_path)]) as one:
        await one.ready()
        _, cells = notebook(
            one,
            tmp_path,
            load=("python", LOADING),
            key=("python", f'api_key = "{KEY}"'),
            prose=("markdown", "# Who paid"),
            sum=("python", "total = "),
            query=("python", "%%sql\nselect "),
            after=("python", "print(total)"),
        )
        (item,) = await one.inline(cells["sum"], 0, 8, automatic=True)
        assert item.insert_text == "customers.revenue.sum()"
        assert item.range == types.Range(types.Position(0, 8), types.Position(0, 8))
        (prompt,) = played.model.asked
        assert "customers = pd.read_csv('customers.csv')" in prompt
        assert "# # Who paid\n" in prompt
        assert prompt.endswith("total = ")
        assert "print(total)" in prompt
        (item,) = await one.inline(cells["query"], 1, 7)
        assert item.insert_text == "name from customers"
        assert "-- %%sql\n" in played.model.asked[-1]
        assert KEY not in "".join((*played.model.asked, *played.model.read))
        why = await one.command("peft-daemon.why", cells["sum"])
        assert why["shown"]["decision"]["document"] == "study.ipynb"


async def test_a_suggestion_in_a_cell_grows_is_taken_and_counted(played: Played, tmp_path: Path) -> None:
    first, whole = "sum(\n    first,", "sum(\n    first,\n    second,\n)"
    played.model.answers({"total = ": whole.replace(first, f"{first}{HERE}")})
    played.model.hold_rest()
    async with editor(played.environ, settings={"showAfterMs": 50, "feedback": "text"}) as one:
        await one.ready()
        uri, cells = notebook(one, tmp_path, a=("python", "first = second = 1"), b=("python", "total = "))
        assert await one.inline(cells["b"], 0, 8, automatic=True)
        more = asyncio.create_task(one.more())
        await asyncio.sleep(0)
        played.model.let_go()
        assert (await more)["uri"] == cells["b"]
        (item,) = await one.inline(cells["b"], 0, 8)
        assert item.insert_text == whole
        one.edit_cell(uri, cells["b"], (0, 8), (0, 8), whole)
        assert await one.leave() == 0
    (row,) = FeedbackStore(played.paths.feedback_file).rows()
    assert (row.record.outcome, row.record.accepted) == (Outcome.ACCEPTED, len(whole))
    assert row.record.path == str(tmp_path / "study.ipynb")


async def test_code_from_a_comment_goes_into_its_cell(played: Played, tmp_path: Path) -> None:
    played.model.answers({"# add the first two\n": "third = first + second"})
    async with editor(played.environ) as one:
        await one.ready()
        _, cells = notebook(
            one, tmp_path, a=("python", "first = second = 1"), b=("python", "%%time\n# add the first two")
        )
        assert await one.command("peft-daemon.generate", {"uri": cells["b"], "line": 1}) is True
        (edit,) = one.edits
        assert edit.document_changes is not None
        (change,) = edit.document_changes
        assert isinstance(change, types.TextDocumentEdit)
        assert change.text_document.uri == cells["b"]
        (inserted,) = change.edits
        assert isinstance(inserted, types.TextEdit)
        assert inserted.new_text == "\nthird = first + second"
        assert inserted.range.start == types.Position(1, 19)
        assert "first = second = 1" in played.model.asked[-1]


async def test_a_notebook_of_a_kind_that_holds_secrets_gets_nothing(played: Played, tmp_path: Path) -> None:
    played.model.answers({"x = ": "y"})
    async with editor(played.environ, settings={"showAfterMs": 0}) as one:
        await one.ready()
        uri = uri_of(tmp_path / ".aws" / "study.ipynb")
        cell = "cell:anything"
        one.open_notebook(uri, {cell: ("python", "x = ")})
        assert await one.inline(cell, 0, 4) == []
        one.move(cell, 0, 4)
        status = await one.status(lambda each: any(off.uri == cell for off in each["off"]))
        assert "no suggestions in study.ipynb" in status["off"][0].why
    assert played.model.asked == played.model.read == []
