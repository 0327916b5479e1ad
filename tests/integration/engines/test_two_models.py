"""A task may have a model of its own: one fills in, another answers sentences and chats, each with what is its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from peft_core.api_types import Task
from peft_core.errors import NotFound
from peft_core.paths import Paths
from peft_core.status_types import DaemonStatus, EngineState
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.engines import on_demand
from support.second_model import ID, SecondModel, second_model
from support.served_gguf import ServedGguf, served_gguf
from support.synthetic_adapter import TinyModel, lora, write_peft
from support.waiting import until

SENTENCE = "add two numbers and return what comes out of it, as a function of both"
Serve = Callable[..., AbstractAsyncContextManager[ServedGguf]]


@pytest.fixture
def second(tmp_path: Path) -> SecondModel:
    return second_model(tmp_path)


@pytest.fixture
def serve(tmp_path: Path, second: SecondModel) -> Serve:
    """Serve both models; ``prepare`` is called with the folders of the home."""

    @asynccontextmanager
    async def both(
        prepare: Callable[[Paths], object] = lambda paths: None, **changes: Any
    ) -> AsyncIterator[ServedGguf]:
        def prepare_home(paths: Paths) -> None:
            second.add(paths)
            prepare(paths)

        async with served_gguf(tmp_path, prepare_home=prepare_home, **({"intent_model": ID} | changes)) as served:
            yield served

    return both


def state(status: DaemonStatus) -> EngineState:
    assert status.intent_engine is not None
    return status.intent_engine.state


def first_adapter(paths: Paths, folder: Path) -> None:
    """Import an adapter for the model that fills in, trained for every task."""
    given = TinyModel.random().write(folder / "same.gguf")
    AdapterRegistry(paths.adapters).import_(
        write_peft(folder / "peft", lora(seed=3)), name="filler", base=BaseModel("tiny", given.sha256, given.path)
    )


async def ask(served: ServedGguf, **changes: Any) -> Any:
    response = await served.client.post("/v1/complete", json={"intent": SENTENCE, "max_tokens": 6, **changes})
    return response.json()


async def chat(served: ServedGguf, **changes: Any) -> Any:
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 12, "temperature": 0, **changes}
    response = await served.client.post("/v1/chat/completions", json=body)
    return response.json()


async def test_promise_29_each_task_has_its_model_and_the_second_is_loaded_when_it_is_asked(serve: Serve) -> None:
    async with serve() as served:
        assert (await served.complete()).json()["model"] == "tiny"
        before = await served.status()
        assert (before.model, before.engine.model, state(before)) == ("tiny", "tiny", EngineState.UNLOADED)
        assert before.warnings == []
        answer = await ask(served)
        assert (answer["model"], answer["task"]) == (ID, "intent")
        after = await served.status()
        assert after.intent_engine is not None and state(after) is EngineState.READY
        assert (after.intent_engine.model, after.intent_engine.pid != after.engine.pid) == (ID, True)
        assert after.memory_bytes > after.engine.memory_bytes + after.intent_engine.memory_bytes


async def test_a_sentence_in_a_file_is_answered_by_filling_in_and_one_alone_by_the_second_model(serve: Serve) -> None:
    async with serve() as served:
        comment = "# add two numbers and return the sum\n"
        in_file = await served.complete(prefix=f"import os\n\n\n{comment}", suffix="\n\n\nprint(os)\n", task=None)
        alone = await served.complete(prefix=comment, suffix="", task=None)
        assert (in_file.json()["model"], alone.json()["model"]) == ("tiny", ID)
        assert in_file.json()["task"] == alone.json()["task"] == "intent"


async def test_openais_model_picks_one_by_its_id(serve: Serve) -> None:
    async with serve() as served:
        listed = (await served.client.get("/v1/models")).json()["data"]
        assert [card["id"] for card in listed][:2] == ["tiny", ID]
        by_id = {name: (await served.raw(name)).json()["choices"][0]["text"] for name in ("tiny", ID)}
        assert by_id["tiny"] != by_id[ID]
        unnamed = await served.client.post(
            "/v1/completions", json={"prompt": "def f(x):", "max_tokens": 12, "temperature": 0}
        )
        assert unnamed.json()["choices"][0]["text"] == by_id["tiny"] and unnamed.json()["model"] == "tiny"
        answers = {name: await chat(served, **named) for name, named in CHATS.items()}
        texts = {name: answer["choices"][0]["message"]["content"] for name, answer in answers.items()}
        assert texts["unnamed"] == texts["second"] != texts["first"]
        assert answers["unnamed"]["model"] == ID
        assert (await served.client.get(f"/v1/models/{ID}")).json()["root"] == ID
        unknown = await chat(served, model="nobody")
        assert unknown["error"]["code"] == "not_found"


CHATS: dict[str, dict[str, str]] = {"unnamed": {}, "first": {"model": "tiny"}, "second": {"model": ID}}


async def test_an_adapter_never_meets_the_other_base(serve: Serve, second: SecondModel, tmp_path: Path) -> None:
    def prepare(paths: Paths) -> None:
        first_adapter(paths, tmp_path)
        second.adapter(paths, "answerer")
        # As an installation may have it from the time before `intent_model` was set.
        AdapterRegistry(paths.adapters).use("filler")

    async with serve(prepare) as served:
        assert (await served.complete()).json()["adapter"]["name"] == "filler"
        assert (await ask(served))["adapter"] is None
        named = await ask(served, adapter="filler")
        assert named["error"]["code"] == "conflict" and ID in named["error"]["message"]
        # What follows it is filled in, with which this adapter has nothing to do.
        assert (await ask(served, adapter="answerer", document="a"))["adapter"]["name"] == "answerer"
        listed = {card["id"]: card for card in (await served.client.get("/v1/models")).json()["data"]}
        assert (listed["filler"]["root"], listed["answerer"]["root"]) == ("tiny", ID)
        # Named as a model, an adapter brings its base with it.
        assert (await chat(served, model="filler"))["choices"] and (await served.raw("answerer")).status_code == 200
        status = await served.status()
        (filler,), (answerer,) = status.engine.adapters, status.intent_engine.adapters  # type: ignore[union-attr]
        assert filler != answerer


async def test_an_adapter_is_put_in_use_for_the_tasks_whose_model_is_its_base(
    serve: Serve, second: SecondModel, tmp_path: Path
) -> None:
    def prepare(paths: Paths) -> None:
        first_adapter(paths, tmp_path)
        second.adapter(paths, "answerer")

    async with serve(prepare) as served:

        async def use(name: str, task: str | None) -> int:
            body = {"name": name, "task": task}
            return (await served.client.post("/v1/adapters/use", json=body)).status_code

        assert [await use("answerer", "fill"), await use("filler", "intent")] == [409, 409]
        assert [await use("answerer", None), await use("filler", None)] == [200, 200]
        in_use = {task: served.registry.resolve(task) for task in Task}
        assert {task: manifest.name for task, manifest in in_use.items() if manifest} == {
            Task.FILL: "filler",
            Task.INTENT: "answerer",
        }
        assert (await ask(served))["adapter"]["name"] == "answerer"
        assert await use("base", None) == 200
        assert all(served.registry.resolve(task) is None for task in Task)


async def test_promise_29_the_second_model_is_unloaded_when_unused_and_finds_what_it_had_read(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_demand, "IDLE_S", 0.05)
    homes: list[Paths] = []
    async with serve(homes.append) as served:
        first = await ask(served)
        assert first["timings"]["prompt_evaluated"] > 64
        gone = await served.until(lambda status: state(status) is EngineState.UNLOADED)
        assert gone.intent_engine is not None and gone.intent_engine.pid is None
        assert gone.engine.state is EngineState.READY
        (home,) = homes
        await until(lambda: bool([*home.intent_kv_states.glob("*.json")]), "a saved state")
        assert not [*home.kv_states.glob("*.json")]
        again = await ask(served)
        assert again["text"] == first["text"]
        assert again["timings"]["prompt_reused"] > 48


async def test_promise_29_the_second_engine_is_supervised_and_its_death_does_not_touch_the_first(serve: Serve) -> None:
    async with serve() as served:
        text = (await ask(served))["text"]
        before = await served.status()
        assert before.intent_engine is not None and before.intent_engine.pid is not None
        psutil.Process(before.intent_engine.pid).kill()
        after = await served.until(lambda status: state(status) is EngineState.READY and restarts(status) == 1)
        assert (after.engine.pid, after.engine.restarts) == (before.engine.pid, 0)
        assert (await ask(served))["text"] == text


def restarts(status: DaemonStatus) -> int:
    return status.intent_engine.restarts if status.intent_engine else 0


async def test_promise_29_a_damaged_file_of_the_second_model_is_told_and_the_first_goes_on(
    serve: Serve, second: SecondModel
) -> None:
    async with serve() as served:
        file = second.base.path
        file.write_bytes(file.read_bytes()[:-8] + b"damaged!")
        failed = await ask(served)
        assert failed["error"]["code"] == "engine_failed" and f"models pull {ID}" in failed["error"]["fix"]
        assert (await served.complete()).json()["model"] == "tiny"


async def test_a_second_model_that_is_not_installed_is_refused_as_the_first_is(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"peft-daemon models pull qwen2\.5-coder-1\.5b-instruct"):
        async with served_gguf(tmp_path, intent_model="qwen2.5-coder-1.5b-instruct"):
            pass
    (tmp_path / "again").mkdir()
    with pytest.raises(NotFound, match="peft-daemon models list"):
        async with served_gguf(tmp_path / "again", intent_model="qwen2.5-coder-1.5b-instrukt"):
            pass


async def test_the_same_model_for_both_tasks_is_loaded_once(serve: Serve) -> None:
    async with serve(intent_model="tiny") as served:
        assert (await ask(served))["model"] == "tiny"
        assert (await served.status()).intent_engine is None


async def test_tokens_are_those_of_the_model_that_is_named(serve: Serve) -> None:
    async with serve() as served:
        body = {"content": "def f(x):"}
        first = (await served.client.post("/tokenize", json=body)).json()["tokens"]
        second = (await served.client.post("/tokenize", json={**body, "model": ID})).json()["tokens"]
        assert first == second  # these two have the same vocabulary
        assert state(await served.status()) is EngineState.READY
        back = await served.client.post("/detokenize", json={"tokens": second, "model": ID})
        assert back.json()["content"] == "def f(x):"


async def test_too_little_memory_for_both_is_told_until_both_are_loaded(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve() as served:
        assert (await served.status()).warnings == []
        scarce = psutil.virtual_memory()._replace(available=1_000_000)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: scarce)
        (warning,) = (await served.status()).warnings
        assert ID in warning and "intent_model" in warning
        monkeypatch.undo()
        await ask(served)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: scarce)
        assert (await served.status()).warnings == []
