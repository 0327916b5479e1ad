"""Which nodes of a cluster take part, and which are refused."""

from __future__ import annotations

import asyncio
import platform
import socket
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from peft_core import __version__
from peft_core.errors import Conflict, InvalidInput, Unavailable
from peft_daemon.adapters.manifest import AdapterLease
from peft_evaluation import cluster, cluster_model
from peft_evaluation.cluster import NodeSlot, connected, node_slots, require_same
from peft_evaluation.cluster_model import ClusterWorker, pack_adapter, unpack_adapter
from peft_evaluation.model import ModelInput, ModelOutput
from peft_tuning.data.examples import IntentExample
from support.tiny_installation import tiny_installation


def node(name: str, *, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {
        "NodeID": name * 4,
        "Alive": alive,
        "NodeManagerHostname": name,
        "NodeName": "10.0.0.1",
        "Resources": resources,
    }


def test_one_process_per_living_node_that_offers_processors_and_all_of_them() -> None:
    nodes = [node("a", CPU=4), node("b", CPU=2, alive=False), node("c"), node("d", CPU=2, GPU=1)]
    assert node_slots(nodes, gpus=False) == (NodeSlot("aaaa", "a (10.0.0.1)", 4), NodeSlot("dddd", "d (10.0.0.1)", 2))


def test_for_torch_one_process_per_gpu_and_nodes_without_one_are_left_out() -> None:
    nodes = [node("a", CPU=4), node("b", CPU=8, GPU=2)]
    assert node_slots(nodes, gpus=True) == (NodeSlot("bbbb", "b (10.0.0.1)", 4, 1),) * 2
    assert node_slots(nodes[:1], gpus=True) == (NodeSlot("aaaa", "a (10.0.0.1)", 4),)


def test_a_cluster_without_processors_is_refused() -> None:
    with pytest.raises(Unavailable, match="no node"):
        node_slots([node("a"), node("b", CPU=1, alive=False)], gpus=False)


def test_a_node_with_the_same_python_and_package_is_taken() -> None:
    require_same("a", platform.python_version(), __version__)
    require_same("a", platform.python_version().rpartition(".")[0] + ".99", __version__)


@pytest.mark.parametrize(
    ("python", "package", "said"),
    [
        ("2.7.1", __version__, "on a: Python 2.7.1"),
        (platform.python_version(), "0.0.9", r"on a: peft-daemon 0\.0\.9.*pip install"),
        (platform.python_version(), None, "on a: peft-daemon is not installed.*pip install"),
    ],
)
def test_a_node_with_another_python_or_package_is_refused_by_name(python: str, package: str | None, said: str) -> None:
    with pytest.raises(Conflict, match=said):
        require_same("a", python, package)


@pytest.mark.parametrize(
    "address", ["", "auto", "local", "somewhere", ":6379", "ray://a:10001", "a:0", "a:65536", "a:x", "a:1/b"]
)
def test_what_is_no_address_is_refused_as_bad_input(tmp_path: Path, address: str) -> None:
    with (
        pytest.raises(InvalidInput, match="HOST:PORT") as refused,
        connected(address, tiny_installation(tmp_path), "llamacpp"),
    ):
        pass
    assert refused.value.exit_code == 2


def test_a_cluster_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unavailable, match=address), connected(address, tiny_installation(tmp_path), "llamacpp"):
            pass


def test_what_listens_there_but_is_no_cluster_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 0.5)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with (
            pytest.raises(Unavailable, match="no answer of Ray"),
            connected(address, tiny_installation(tmp_path), "llamacpp"),
        ):
            pass


@pytest.mark.parametrize("folder", [True, False])
def test_an_adapter_arrives_as_it_was(tmp_path: Path, folder: bool) -> None:
    source, target = tmp_path / "source", tmp_path / "below" / "target"
    if folder:
        (source / "inner").mkdir(parents=True)
        (source / "weights").write_bytes(b"\0\1")
        (source / "inner" / "config.json").write_bytes(b"{}")
    else:
        source.write_bytes(b"GGUF")
    unpack_adapter(pack_adapter(source), target)
    assert target.is_file() is not folder
    assert pack_adapter(target) == pack_adapter(source)


async def test_a_worker_unpacks_an_adapter_once_for_all_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[AdapterLease | None] = []
    fetched = 0

    class Noting:
        at_once = 2

        async def answer(self, question: ModelInput) -> ModelOutput:
            seen.append(question.adapter)
            return ModelOutput(texts=(), shown=0, prompt_tokens=0, reused_tokens=0, answer_tokens=0, latency_ms=0)

        def memory_bytes(self) -> int:
            return 7

    async def adapter_files() -> dict[str, bytes]:
        nonlocal fetched
        fetched += 1
        await asyncio.sleep(0)
        return {"": b"GGUF"}

    async def ask() -> tuple[ModelOutput, int]:
        # A coroutine stands for Ray's reference, which is read only where it is awaited.
        sent: Awaitable[dict[str, bytes]] = adapter_files()
        waiting.append(sent)
        return await worker.answer(question, (sent,))

    worker, waiting = ClusterWorker(), list[Any]()
    monkeypatch.setattr(worker, "_model", Noting())
    monkeypatch.setattr(worker, "_folder", tmp_path)
    adapter = AdapterLease("ab" * 32, Path("/of/another/machine.gguf"), 0.5)
    question = ModelInput(example=IntentExample(id="i", intent="i", code="c"), shown=(), adapter=adapter, seed=0)
    answered = await asyncio.gather(ask(), ask(), ask())
    for left in waiting:
        left.close()
    assert [memory for _, memory in answered] == [7, 7, 7]
    assert fetched == 1
    assert seen == [AdapterLease("ab" * 32, tmp_path / ("ab" * 32), 0.5)] * 3
    assert (tmp_path / ("ab" * 32)).read_bytes() == b"GGUF"


async def test_a_worker_refuses_another_file_under_the_models_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEFT_DAEMON_HOME", str(tmp_path))
    model = tmp_path / "cache" / "qwen2.gguf"
    model.parent.mkdir()
    model.write_bytes(b"another")
    with pytest.raises(Conflict, match=r"tiny-qwen2 is a different file.*peft-daemon models pull tiny-qwen2"):
        await cluster_model.ClusterWorker().require_base(tiny_installation(tmp_path / "driver"), "0" * 64)
