"""Use the nodes of a Ray cluster: find them, compare their versions with this machine's, start a process on each.

All checks are made before the first question. This connects only to the given address and starts no node. What the
processes do, and which of them gets a question, is in ``cluster_model``.
"""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import subprocess
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, chdir, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from peft_core import __version__
from peft_core.errors import Conflict, EngineFailed, InvalidInput, PeftDaemonError, Unavailable
from peft_core.processes import WORKING_FOLDER, python_code, run
from peft_core.status_types import TORCH
from peft_daemon.adapters.manifest import AdapterLease
from peft_evaluation.cluster_model import ClusterWorker, DistributedModel, NodeLost, pack_adapter
from peft_evaluation.model import ModelInput, ModelOutput, ModelSpec
from peft_tuning.installation import Installation

REACH_S, CONNECT_S, REPLY_S, CLOSE_S = 5.0, 60.0, 90.0, 10.0
"""Timeouts in seconds: connecting to the head, connecting Ray, the first reply of a node's process, ending it."""

CONNECT = """
import sys, ray
try:
    ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
except Exception as error:
    sys.exit(" ".join(str(error).split())[:500])
"""


@dataclass(frozen=True)
class NodeSlot:
    """The resources of a node that one process gets."""

    node_id: str
    node: str
    """For messages: the host name and the node's name in Ray, which is its address unless it was given another."""
    cpus: float
    gpus: int = 0


class RayNode:
    """The model in one process of the cluster; implements ``cluster_model.RemoteModel``."""

    def __init__(self, slot: NodeSlot, actor: Any) -> None:
        self.node, self.at_once = slot.node, 1
        self._actor = actor
        self._adapters: dict[str, Any] = {}

    async def open(self, plan: ModelSpec, adapters: dict[str, Any]) -> None:
        """Load the model there.

        ``adapters`` has Ray's reference of each adapter sent so far, by digest; shared.
        """
        self._adapters = adapters
        try:
            self.at_once = await self._call("open", plan)
        except NodeLost as lost:
            raise EngineFailed(
                f"lost {self.node}", why=str(lost), fix="The same command with `--resume` continues without it"
            ) from None

    async def answer(self, question: ModelInput) -> tuple[ModelOutput, int]:
        """See ``RemoteModel``."""
        adapters = (self._sent(question.adapter),) if question.adapter else ()
        answered: tuple[ModelOutput, int] = await self._call("answer", question, adapters)
        return answered

    async def close(self) -> None:
        """End its engine, if the node is still there."""
        with suppress(NodeLost, PeftDaemonError):
            await self._call("close")

    def _sent(self, adapter: AdapterLease) -> Any:
        """Return Ray's reference to the files of ``adapter``, which are sent to the cluster once."""
        import ray  # noqa: PLC0415  (an extra)

        if adapter.digest not in self._adapters:
            self._adapters[adapter.digest] = ray.put(pack_adapter(adapter.path))
        return self._adapters[adapter.digest]

    async def _call(self, method: str, *arguments: object) -> Any:
        try:
            return await getattr(self._actor, method).remote(*arguments)
        except Exception as error:
            raise _translate(self.node, error) from None


@dataclass(frozen=True)
class Cluster:
    """The processes on the nodes; none has loaded the model yet."""

    workers: tuple[RayNode, ...]

    @asynccontextmanager
    async def opened(self, plan: ModelSpec) -> AsyncGenerator[DistributedModel, None]:
        """Load the model on all nodes, and yield them as one model; raises what loading raises on a node."""
        adapters: dict[str, Any] = {}
        try:
            async with asyncio.TaskGroup() as group:
                for worker in self.workers:
                    group.create_task(worker.open(plan, adapters))
            yield DistributedModel(self.workers)
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*(worker.close() for worker in self.workers)), CLOSE_S)


@contextmanager
def connected(address: str, installation: Installation, engine: str) -> Iterator[Cluster]:
    """Yield the cluster whose head is at ``address`` (``HOST:PORT``); its processes end with the block.

    Raises InvalidInput for text that is not such an address, Unavailable if the cluster or a node does not reply in
    time, Conflict for a node with another version or base model, NotFound for a node without the base model.
    """
    _require_reachable(address)
    base = installation.base
    import ray  # noqa: PLC0415  (an extra)

    # Ray puts the working directory on the workers' import path, and it may be a repository nobody has read.
    with chdir(WORKING_FOLDER):
        ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    try:
        slots = _with_same_versions(node_slots(ray.nodes(), gpus=engine == TORCH))
        actors = [_start(slot) for slot in slots]
        calls = [actor.require_base.remote(installation, base.sha256) for actor in actors]
        for slot, found in zip(slots, _replies(slots, calls, "has no free processor"), strict=True):
            if isinstance(found, NodeLost):
                raise EngineFailed(f"lost {slot.node}", why=str(found), fix="`ray status` shows the state of the nodes")
        yield Cluster(tuple(RayNode(slot, actor) for slot, actor in zip(slots, actors, strict=True)))
    finally:
        ray.shutdown()


def node_slots(nodes: Iterable[Mapping[str, Any]], *, gpus: bool) -> tuple[NodeSlot, ...]:
    """Return where to start processes: one per node; with ``gpus`` one per GPU, if the cluster has any.

    In the latter case nodes without a GPU are left out, as they round numbers differently. Nodes that offer no
    processor are left out, too. ``nodes`` is Ray's description of them. Raises Unavailable if no node is left.
    """
    slots = []
    for node in nodes:
        offered = node["Resources"]
        count, cpus = int(offered.get("GPU", 0)), offered.get("CPU", 0)
        if not node["Alive"] or cpus < 1:
            continue
        name = f"{node['NodeManagerHostname']} ({node['NodeName']})"
        if gpus and count:
            slots += [NodeSlot(node["NodeID"], name, cpus // count, 1)] * count
        else:
            slots.append(NodeSlot(node["NodeID"], name, cpus))
    if gpus and any(slot.gpus for slot in slots):
        slots = [slot for slot in slots if slot.gpus]
    if not slots:
        raise Unavailable(
            "no node of the cluster offers a processor", fix="Start nodes with `ray start --address HOST:PORT`"
        )
    return tuple(slots)


def require_same(node: str, python: str, package: str | None) -> None:
    """Raise Conflict unless a node has this machine's Python (major and minor) and this version of the package.

    ``python`` and ``package`` are the versions on the node; ``package`` is None where it is not installed.
    """
    if package != __version__:
        raise Conflict(
            f"on {node}: peft-daemon {package}" if package else f"on {node}: peft-daemon is not installed",
            why=f"here it is {__version__}",
            fix=f"There: `pip install 'peft-daemon[ray]=={__version__}'`, in the environment of its `ray start`",
        )
    here = platform.python_version()
    if python.split(".")[:2] != here.split(".")[:2]:
        raise Conflict(f"on {node}: Python {python}", why=f"here it is {here}", fix="Use the same version on all nodes")


def _require_reachable(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidInput(
            f"'{address}' is not the address of a Ray cluster",
            why="an address has the form HOST:PORT",
            fix="`ray start --head` shows it, e.g. `--ray 10.0.0.5:6379`",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_S).close()
    except OSError as error:
        raise _unreachable(address, str(error)) from None
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # In a process of its own, which can be ended: Ray tries for minutes and has no timeout for it.
    command = python_code(CONNECT, address)
    try:
        tried = run(command, capture_output=True, text=True, timeout=CONNECT_S)
    except subprocess.TimeoutExpired:
        raise _unreachable(address, f"no answer of Ray within {CONNECT_S:.0f} s") from None
    if tried.returncode:
        raise _unreachable(address, tried.stderr.strip().rpartition("\n")[2])


def _unreachable(address: str, why: str) -> Unavailable:
    return Unavailable(
        f"cannot use the Ray cluster at {address}",
        why=why,
        fix="This machine has to be one of its nodes: `ray start`, see docs/evaluation.md. Or leave --ray out",
    )


def _with_same_versions(slots: Sequence[NodeSlot]) -> tuple[NodeSlot, ...]:
    """Return the slots of the nodes that reply.

    Raises what ``require_same`` raises, Unavailable if none replies. The function that is run on the nodes needs only
    Ray there.
    """
    import ray  # noqa: PLC0415  (an extra)

    def versions() -> tuple[str, str | None]:
        import platform  # noqa: PLC0415  (this function is run elsewhere)

        try:
            from peft_core import __version__  # noqa: PLC0415
        except ImportError:
            return platform.python_version(), None
        return platform.python_version(), __version__

    task = ray.remote(num_cpus=0, max_retries=0)(versions)
    calls = [task.options(scheduling_strategy=_only_on(slot)).remote() for slot in slots]
    left = []
    for slot, found in zip(slots, _replies(slots, calls, "does not reply"), strict=True):
        # Ray lists a node for half a minute after it ended.
        if not isinstance(found, NodeLost):
            require_same(slot.node, *found)
            left.append(slot)
    if not left:
        raise Unavailable("no node of the cluster is left", fix="`ray status` shows the state of the nodes")
    return tuple(left)


def _start(slot: NodeSlot) -> Any:
    import ray  # noqa: PLC0415  (an extra)

    # All processors of the node, so that no second evaluation runs there.
    options = {"num_cpus": slot.cpus, "num_gpus": slot.gpus, "scheduling_strategy": _only_on(slot)}
    return ray.remote(ClusterWorker).options(**options).remote()


def _only_on(slot: NodeSlot) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415  (an extra)

    return NodeAffinitySchedulingStrategy(slot.node_id, soft=False)


def _replies(slots: Sequence[NodeSlot], calls: Sequence[Any], otherwise: str) -> list[Any]:
    """Return what the ``calls`` to the nodes returned; NodeLost for a node that is gone.

    Raises Unavailable, with the text ``otherwise``, for a node that does not reply in time, and the errors of a call.
    """
    import ray  # noqa: PLC0415  (an extra)

    ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=REPLY_S)
    replies: list[Any] = []
    for slot, each in zip(slots, calls, strict=True):
        if each not in ready:
            raise Unavailable(
                f"{slot.node} {otherwise}",
                why=f"waited {REPLY_S:.0f} s",
                fix="`ray status` shows the state of the nodes",
            )
        try:
            replies.append(ray.get(each))
        except Exception as error:
            found = _translate(slot.node, error)
            if not isinstance(found, NodeLost):
                raise found from None
            replies.append(found)
    return replies


def _translate(node: str, error: Exception) -> Exception:
    """Return an error of a node as one of this project's errors with the node's name, or as NodeLost."""
    from ray import exceptions  # noqa: PLC0415  (an extra)

    cause = error.cause if isinstance(error, exceptions.RayTaskError) else error
    if isinstance(cause, PeftDaemonError):
        return type(cause)(f"on {node}: {cause.what}", why=cause.why, fix=f"There: {cause.fix}" if cause.fix else "")
    if isinstance(error, exceptions.RayTaskError):
        return EngineFailed(f"on {node}: {type(cause).__name__}", why=" ".join(str(cause).split())[-300:])
    if isinstance(error, exceptions.RayError):
        return NodeLost(f"{type(error).__name__}: {str(error).strip().rpartition(chr(10))[2][:200]}")
    return error
