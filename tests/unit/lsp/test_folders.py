"""A document belongs to the innermost open folder of this machine that it lies in."""

from __future__ import annotations

import pytest

from peft_lsp.documents import WorkspaceFolders
from peft_lsp.handlers.initialize import workspace_folders

OUTER, INNER = "file:///code", "file:///code/inner%20one"


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("/code/a.py", "/code"),
        ("/code/inner one/deep/a.py", "/code/inner one"),
        ("/code/inner one", "/code"),
        ("/codebase/a.py", None),
        ("/a.py", None),
        (None, None),
    ],
)
def test_the_innermost_folder_counts(path: str | None, folder: str | None) -> None:
    assert WorkspaceFolders([OUTER, INNER]).around(path) == folder
    assert WorkspaceFolders([INNER, OUTER]).around(path) == folder


def test_folders_that_are_closed_or_on_another_machine_do_not_count() -> None:
    some = WorkspaceFolders([OUTER, "vscode-remote://host/elsewhere"])
    assert some.around("/elsewhere/a.py") is None
    some.change([OUTER, "file:///never/there"], ["file:///new"])
    assert some.around("/code/a.py") is None
    assert some.around("/new/a.py") == "/new"


def test_a_path_longer_than_the_daemon_takes_is_no_folder() -> None:
    long = "/x" * 3000
    assert WorkspaceFolders([f"file://{long}"]).around(f"{long}/a.py") is None


@pytest.mark.parametrize(
    ("params", "uris"),
    [
        ({"workspaceFolders": [{"uri": OUTER, "name": "a"}, {"uri": INNER, "name": "b"}], "rootUri": "file:///x"},
         [OUTER, INNER]),
        ({"workspaceFolders": None, "rootUri": OUTER}, [OUTER]),
        ({"workspaceFolders": [], "rootUri": OUTER}, []),
        ({"rootUri": None}, []),
        ({"workspaceFolders": [None, {"name": "no uri"}, {"uri": 3}]}, []),
    ],
)  # fmt: skip
def test_older_clients_name_one_root(params: dict[str, object], uris: list[str]) -> None:
    assert workspace_folders(params) == uris
