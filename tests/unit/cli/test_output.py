"""What a message tells to type for what an installation lacks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from peft_cli import output
from peft_cli.report import app
from peft_core.errors import NotFound


@pytest.mark.parametrize(
    ("origin", "wanted"),
    [
        ({"url": "file:///lib/a%20b/x.whl"}, "'peft-daemon[tune] @ file:///lib/a%20b/x.whl'"),
        ({"url": "file:///src/a%20b", "dir_info": {"editable": True}}, "-e '/src/a b[tune]'"),
        (None, "'peft-daemon[tune]'"),
    ],
    ids=["from a wheel", "from a checkout", "from an index"],
)
@pytest.mark.skipif(sys.platform == "win32", reason="paths of Unix")
def test_a_missing_extra_is_installed_from_where_the_package_came_from(
    monkeypatch: pytest.MonkeyPatch, origin: object, wanted: str
) -> None:
    installed = SimpleNamespace(read_text=lambda name: origin and json.dumps(origin))
    monkeypatch.setattr(output, "distribution", lambda name: installed)
    with pytest.raises(NotFound) as caught:
        output.require_extra("tuning", "tune", ("no_such_module",))
    assert caught.value.fix == f"Install the extra: {sys.executable} -m pip install {wanted}"


def test_reports_are_listed_without_an_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PEFT_DAEMON_HOME", str(tmp_path))
    monkeypatch.setattr(output, "find_spec", lambda name: None)
    assert CliRunner().invoke(app, ["list", "--json"]).output.strip() == "[]"
