"""An adapter whose files are damaged under a running daemon: the base answers, or the request that names it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from peft_core.api_types import Task
from peft_core.status_types import EngineState
from peft_daemon.adapters.manifest import AdapterLease, Manifest
from peft_daemon.engines.llamacpp.engine import LlamaCppEngine
from support.served_gguf import ServedGguf, served_gguf
from support.synthetic_adapter import lora, write_peft


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[ServedGguf]:
    async with served_gguf(tmp_path) as one:
        yield one


def in_use(served: ServedGguf, folder: Path) -> Manifest:
    manifest = served.registry.import_(write_peft(folder / "peft", lora()), name="mine", base=served.base)
    served.registry.use("mine", Task.FILL)
    return manifest


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    return data[:-9] + bytes(byte ^ 1 for byte in data[-9:])


@pytest.mark.parametrize("damage", [truncated, flipped])
async def test_the_base_answers_instead_and_no_engine_is_started_that_dies(
    served: ServedGguf, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    base = (await served.complete()).json()
    file = served.registry.lease(in_use(served, tmp_path)).path
    file.write_bytes(damage(file.read_bytes()))
    before = await served.status()
    for _ in range(3):
        answer = await served.complete()
        assert answer.status_code == 200
        assert (answer.json()["adapter"], answer.json()["text"]) == (None, base["text"])
    named = [await served.complete(adapter="mine"), await served.raw("mine")]
    assert [each.status_code for each in named] == [502, 502]
    assert "adapter 'mine' is damaged" in named[0].json()["error"]["what"]
    assert "--name mine" in named[0].json()["error"]["fix"]
    after = await served.status()
    assert (after.engine.pid, after.engine.restarts) == (before.engine.pid, before.engine.restarts)
    assert "'mine' is damaged" in " ".join(after.left_out)

    in_use(served, tmp_path)
    assert (await served.complete()).json()["adapter"]["name"] == "mine"
    assert (await served.status()).left_out == []


async def test_one_that_is_loaded_is_left_out_when_the_engine_starts_again(served: ServedGguf, tmp_path: Path) -> None:
    file = served.registry.lease(in_use(served, tmp_path)).path
    assert (await served.complete()).json()["adapter"]["name"] == "mine"
    file.write_bytes(flipped(file.read_bytes()))
    await served.kill_engine()
    status = await served.until(lambda now: now.engine.state is EngineState.READY)
    assert status.engine.adapters == []
    assert (await served.complete()).json()["adapter"] is None


async def test_one_that_is_removed_while_the_engine_loads_it_leaves_the_base_to_answer(
    served: ServedGguf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = (await served.complete()).json()

    async def remove(_engine: LlamaCppEngine, _adapter: AdapterLease) -> None:
        served.registry.remove("mine", force=True)

    # After this check the child reads the file.
    monkeypatch.setattr(LlamaCppEngine, "_check", remove)
    in_use(served, tmp_path)
    answer = await served.complete()
    assert answer.status_code == 200, answer.text
    assert (answer.json()["adapter"], answer.json()["text"]) == (None, base["text"])
    in_use(served, tmp_path)
    named = await served.complete(adapter="mine")
    assert named.status_code == 404
    assert "'mine'" in named.json()["error"]["what"] and "removed meanwhile" in named.json()["error"]["what"]


async def test_one_whose_files_are_gone_leaves_the_base_to_answer(served: ServedGguf, tmp_path: Path) -> None:
    file = served.registry.lease(in_use(served, tmp_path)).path
    file.unlink()
    assert (await served.complete()).json()["adapter"] is None
    assert (await served.complete(adapter="mine")).status_code == 502
