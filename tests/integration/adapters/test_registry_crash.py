"""A process killed at any step of a change leaves the registry as it was before or as it is after."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import pytest

from peft_core.api_types import Task
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from support.synthetic_adapter import TinyModel, lora, write_peft

CHILD = Path(__file__).with_name("killed_change.py")

View = dict[str, Any]


def view(registry: AdapterRegistry) -> View:
    """All a user can see of the registry; every adapter in it must be whole."""
    for row in registry.list_adapters():
        manifest = registry.get(row.digest)
        reader = gguf.GGUFReader(registry.lease(manifest).path)
        assert len(reader.tensors) == 2 * manifest.modules
    used = registry.resolve(Task.FILL)
    histories = {
        row.name: [version.digest for version in registry.history(row.name)] for row in registry.list_adapters()
    }
    return {
        "listed": sorted(row.name for row in registry.list_adapters()),
        "names": {name: history for name, history in histories.items() if history},
        "fill": used.digest if used else None,
    }


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BaseModel]:
    """A registry where ``old`` has two versions and serves FILL, and an adapter that waits for import."""
    folder = tmp_path_factory.mktemp("prepared")
    base = TinyModel.random().write(folder / "base.gguf")
    registry = AdapterRegistry(folder / "registry")
    for seed in (1, 2):
        registry.import_(write_peft(folder / f"peft{seed}", lora(seed=seed)), name="old", base=base)
    registry.use("old", Task.FILL)
    write_peft(folder / "peft", lora(seed=3))
    return folder, base


CHANGES = [("import", "mine"), ("import", "old"), ("use", "base"), ("rollback", "old"), ("remove", "old")]


@pytest.mark.parametrize(("change", "name"), CHANGES, ids=["-".join(change) for change in CHANGES])
def test_a_kill_at_any_step_leaves_before_or_after(
    prepared: tuple[Path, BaseModel], tmp_path: Path, change: str, name: str
) -> None:
    folder, base = prepared
    before = view(AdapterRegistry(folder / "registry"))
    seen: list[View] = []
    for kill_at in range(200):
        victim = tmp_path / str(kill_at)
        shutil.copytree(folder / "registry", victim)
        orders = {
            "kill_at": kill_at,
            "registry": str(victim),
            "change": change,
            "name": name,
            "peft": str(folder / "peft"),
            "base": str(base.path),
            "sha256": base.sha256,
        }
        child = subprocess.run(
            [sys.executable, CHILD, json.dumps(orders)], capture_output=True, text=True, timeout=60, check=False
        )
        registry = AdapterRegistry(victim)
        seen.append(view(registry))
        # The next change works, whatever was left, and sweeps it up.
        registry.import_(folder / "peft", name="mine", base=base)
        assert view(registry)["names"]["mine"]
        assert list((victim / "scratch").iterdir()) == []
        if child.returncode == 0:
            break
        assert child.stdout.startswith("killed before"), child.stderr
    else:
        pytest.fail("the change never ended")
    after = seen[-1]
    assert before != after
    assert kill_at >= 3, "the change must have steps to be killed at"
    for state in seen:
        for part in ("listed", "names", "fill"):
            assert state[part] in (before[part], after[part])
