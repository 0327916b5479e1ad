"""Where the disk takes no more, adapters are whole or absent, as before, and the error says so."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from peft_core.errors import NoSpace, is_full
from peft_daemon.adapters.manifest import Manifest
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from support.limited_files import files_of_at_most

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")


@pytest.mark.parametrize("room", [10, 300, 3000])
def test_an_import_that_finds_no_room_changes_nothing(
    registry: AdapterRegistry, store: Callable[..., Manifest], base: BaseModel, peft: Path, room: int
) -> None:
    before = store("before")
    with files_of_at_most(room), pytest.raises(NoSpace, match="disk is full"):
        registry.import_(peft, name="mine", base=base)
    assert [(row.name, row.damaged) for row in registry.list_adapters(check=True)] == [("before", "")]
    assert registry.get("before") == before
    assert list((registry.folder / "scratch").iterdir()) == []
    assert registry.import_(peft, name="mine", base=base).name == "mine"


@pytest.mark.parametrize("form", ["gguf", "peft", "peft-float16"])
def test_an_export_that_finds_no_room_leaves_nothing_under_its_name(
    registry: AdapterRegistry, store: Callable[..., Manifest], tmp_path: Path, form: str
) -> None:
    store("mine")
    with files_of_at_most(300), pytest.raises(Exception, match=r"too large|os error") as full:
        registry.export("mine", tmp_path / "out", form)  # type: ignore[arg-type]
    assert is_full(full.value)
    assert not list(tmp_path.glob("*out*"))
    assert registry.export("mine", tmp_path / "out", form).exists()  # type: ignore[arg-type]
