"""The nodes of a Ray cluster as workers: found, compared with this machine, and given one process each.

All that can be refused is refused before anything is asked. Connects only to the address it is given, and starts no
node. What the processes do, and which of them gets an input, is in ``cluster_model``.
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
from peft_core.api_types import TORCH
from peft_core.errors import Conflict, EngineFailed, InvalidInput, PeftDaemonError, Unavailable
from peft_core.processes import WORKING_FOLDER, python_code, run
from peft_daemon.adapters.manifest import AdapterLease
from peft_evaluation.cluster_model import ClusterWorker, DistributedModel, NodeLost, packed
from peft_evaluation.model import ModelInput, ModelOutput, ModelSpec
from peft_tuning.installation import Installation

REACH_S, CONNECT_S, REPLY_S, CLOSE_S = 5.0, 60.0, 90.0, 10.0
"""Seconds until the head takes a connection, Ray is connected, a node has a process that replies, and it has ended."""

CONNECT = """
import sys, ray
try:
    ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
except Exception as error:
    sys.exit(" ".join(str(error).split())[:500])
"""


@dataclass(frozen=True)
class NodeSlot:
    """Room for one process."""

    node_id: str
    node: str
    """For people: host name, and the name it has in Ray, which is its address unless it was given one."""
    cpus: float
    gpus: int = 0


class RayNode:
    """See ``cluster_model.RemoteModel``."""

    def __init__(self, spot: NodeSlot, actor: Any) -> None:
        self.node, self.at_once = spot.node, 1
        self._actor = actor
        self._parcels: dict[str, Any] = {}

    async def open(self, plan: ModelSpec, parcels: dict[str, Any]) -> None:
        """Load the model there. ``parcels`` are the adapters sent so far, by digest, for all workers."""
        self._parcels = parcels
        try:
            self.at_once = await self._call("open", plan)
        except NodeLost as lost:
            raise EngineFailed(
                f"lost {self.node}", why=str(lost), fix="The same command with `--resume` goes on without it"
            ) from None

    async def answer(self, question: ModelInput) -> tuple[ModelOutput, int]:
        """See ``RemoteModel``."""
        parcels = (self._parcel(question.adapter),) if question.adapter else ()
        answered: tuple[ModelOutput, int] = await self._call("answer", question, parcels)
        return answered

    async def close(self) -> None:
        """End its engine, if it is still there."""
        with suppress(NodeLost, PeftDaemonError):
            await self._call("close")

    def _parcel(self, adapter: AdapterLease) -> Any:
        import ray  # noqa: PLC0415  (an extra)

        if adapter.digest not in self._parcels:
            self._parcels[adapter.digest] = ray.put(packed(adapter.path))
        return self._parcels[adapter.digest]

    async def _call(self, method: str, *arguments: object) -> Any:
        try:
            return await getattr(self._actor, method).remote(*arguments)
        except Exception as error:
            raise _translated(self.node, error) from None


@dataclass(frozen=True)
class Cluster:
    """Nodes that can answer, each with a process that has not loaded the model yet."""

    workers: tuple[RayNode, ...]

    @asynccontextmanager
    async def opened(self, plan: ModelSpec) -> AsyncGenerator[DistributedModel, None]:
        """All of them as one answerer; raises what one of them raises while it loads the model."""
        parcels: dict[str, Any] = {}
        try:
            async with asyncio.TaskGroup() as group:
                for worker in self.workers:
                    group.create_task(worker.open(plan, parcels))
            yield DistributedModel(self.workers)
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*(worker.close() for worker in self.workers)), CLOSE_S)


@contextmanager
def connected(address: str, installation: Installation, engine: str) -> Iterator[Cluster]:
    """The cluster whose head is at ``address`` (``HOST:PORT``), until the block ends; its processes end with it.

    Raises InvalidInput for what is no address, Unavailable when the cluster or a node does not reply in time, Conflict
    and NotFound for a node that would answer otherwise: another version, another base model or none.
    """
    _require_reachable(address)
    base = installation.base
    import ray  # noqa: PLC0415  (an extra)

    # Ray puts the working directory on the workers' import path, and it may be a repository nobody has read.
    with chdir(WORKING_FOLDER):
        ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    try:
        spots = _with_same_versions(node_slots(ray.nodes(), gpus=engine == TORCH))
        actors = [_start(spot) for spot in spots]
        asked = [actor.require_base.remote(installation, base.sha256) for actor in actors]
        for spot, found in zip(spots, _replies(spots, asked, "has no free processor"), strict=True):
            if isinstance(found, NodeLost):
                raise EngineFailed(f"lost {spot.node}", why=str(found), fix="`ray status` shows what the nodes do")
        yield Cluster(tuple(RayNode(spot, actor) for spot, actor in zip(spots, actors, strict=True)))
    finally:
        ray.shutdown()


def node_slots(nodes: Iterable[Mapping[str, Any]], *, gpus: bool) -> tuple[NodeSlot, ...]:
    """Where to put processes: one per node, or with ``gpus`` one per GPU if there is any.

    Nodes without a GPU are left out then: they would round otherwise. So are nodes that offer no processor. ``nodes``
    are as Ray describes them. Raises Unavailable when nothing is left.
    """
    spots = []
    for node in nodes:
        offered = node["Resources"]
        count, cpus = int(offered.get("GPU", 0)), offered.get("CPU", 0)
        if not node["Alive"] or cpus < 1:
            continue
        name = f"{node['NodeManagerHostname']} ({node['NodeName']})"
        if gpus and count:
            spots += [NodeSlot(node["NodeID"], name, cpus // count, 1)] * count
        else:
            spots.append(NodeSlot(node["NodeID"], name, cpus))
    if gpus and any(spot.gpus for spot in spots):
        spots = [spot for spot in spots if spot.gpus]
    if not spots:
        raise Unavailable(
            "no node of the cluster offers a processor", fix="Start nodes with `ray start --address HOST:PORT`"
        )
    return tuple(spots)


def require_same(node: str, python: str, package: str | None) -> None:
    """Raise Conflict unless a node has this process's Python, but for the patch level, and this very package.

    ``package`` is its version there; None: it is not installed.
    """
    if package != __version__:
        raise Conflict(
            f"on {node}: peft-daemon {package}" if package else f"on {node}: peft-daemon is not installed",
            why=f"here it is {__version__}",
            fix=f"There: `pip install 'peft-daemon[ray]=={__version__}'`, in the environment of its `ray start`",
        )
    here = platform.python_version()
    if python.split(".")[:2] != here.split(".")[:2]:
        raise Conflict(f"on {node}: Python {python}", why=f"here it is {here}", fix="Use the same one on all nodes")


def _require_reachable(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidInput(
            f"'{address}' is no address of a Ray cluster",
            why="it has the form HOST:PORT",
            fix="`ray start --head` shows it, e.g. `--ray 10.0.0.5:6379`",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_S).close()
    except OSError as error:
        raise _unreachable(address, str(error)) from None
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # In a process that can be ended: Ray tries for minutes, and cannot be told to give up.
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


def _with_same_versions(spots: Sequence[NodeSlot]) -> tuple[NodeSlot, ...]:
    """Those that are still there; raises what ``require_same`` raises. What is sent needs nothing there but Ray."""
    import ray  # noqa: PLC0415  (an extra)

    def versions() -> tuple[str, str | None]:
        import platform  # noqa: PLC0415  (this function is run elsewhere)

        try:
            from peft_core import __version__  # noqa: PLC0415
        except ImportError:
            return platform.python_version(), None
        return platform.python_version(), __version__

    task = ray.remote(num_cpus=0, max_retries=0)(versions)
    asked = [task.options(scheduling_strategy=_only_on(spot)).remote() for spot in spots]
    left = []
    for spot, found in zip(spots, _replies(spots, asked, "does not reply"), strict=True):
        # Ray lists a node for half a minute after its end.
        if not isinstance(found, NodeLost):
            require_same(spot.node, *found)
            left.append(spot)
    if not left:
        raise Unavailable("no node of the cluster is left", fix="`ray status` shows what the nodes do")
    return tuple(left)


def _start(spot: NodeSlot) -> Any:
    import ray  # noqa: PLC0415  (an extra)

    # All processors of the node: a second evaluation there would only be in the way.
    options = {"num_cpus": spot.cpus, "num_gpus": spot.gpus, "scheduling_strategy": _only_on(spot)}
    return ray.remote(ClusterWorker).options(**options).remote()


def _only_on(spot: NodeSlot) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415  (an extra)

    return NodeAffinitySchedulingStrategy(spot.node_id, soft=False)


def _replies(spots: Sequence[NodeSlot], asked: Sequence[Any], otherwise: str) -> list[Any]:
    """What the nodes replied, WorkerLost for one that is gone.

    Raises Unavailable for one that does not reply in time, and what went wrong there.
    """
    import ray  # noqa: PLC0415  (an extra)

    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=REPLY_S)
    replies: list[Any] = []
    for spot, each in zip(spots, asked, strict=True):
        if each not in ready:
            raise Unavailable(
                f"{spot.node} {otherwise}", why=f"waited {REPLY_S:.0f} s", fix="`ray status` shows what the nodes do"
            )
        try:
            replies.append(ray.get(each))
        except Exception as error:
            found = _translated(spot.node, error)
            if not isinstance(found, NodeLost):
                raise found from None
            replies.append(found)
    return replies


def _translated(node: str, error: Exception) -> Exception:
    """What went wrong on a node, in terms of its user, or as WorkerLost."""
    from ray import exceptions  # noqa: PLC0415  (an extra)

    cause = error.cause if isinstance(error, exceptions.RayTaskError) else error
    if isinstance(cause, PeftDaemonError):
        return type(cause)(f"on {node}: {cause.what}", why=cause.why, fix=f"There: {cause.fix}" if cause.fix else "")
    if isinstance(error, exceptions.RayTaskError):
        return EngineFailed(f"on {node}: {type(cause).__name__}", why=" ".join(str(cause).split())[-300:])
    if isinstance(error, exceptions.RayError):
        return NodeLost(f"{type(error).__name__}: {str(error).strip().rpartition(chr(10))[2][:200]}")
    return error
