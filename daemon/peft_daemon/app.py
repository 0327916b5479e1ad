"""The daemon's application: models, engines, service and routes put together for one home."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware

from peft_core import __version__
from peft_core.api_types import PROTOCOL_VERSION, Task
from peft_core.errors import Conflict, PeftDaemonError
from peft_core.files import private_folder
from peft_core.memory import read_memory
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_core.status_types import TORCH, UPSTREAM, DaemonStatus, ServingSpeed
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.shipped_adapters import update_shipped_adapters
from peft_daemon.completion.eagerness import EagernessFromFeedback
from peft_daemon.completion.model_instance import ModelInstance
from peft_daemon.completion.service import CompletionService
from peft_daemon.context.repository import RepositoryContext
from peft_daemon.daemon_log import RecentErrors
from peft_daemon.engines import factory
from peft_daemon.engines.base import Engine, EngineSpeed, LoadChecks, ReloadableEngine
from peft_daemon.engines.limits import KnownSpeeds, context_tokens
from peft_daemon.engines.llamacpp.choice import choose_program
from peft_daemon.engines.memory import MemoryCeiling
from peft_daemon.engines.on_demand import OnDemandEngine, on_demand
from peft_daemon.feedback import FeedbackStore
from peft_daemon.learning.conditions import MachineReader
from peft_daemon.learning.learner import LearnedBase, Learner
from peft_daemon.learning.service import LearningService
from peft_daemon.lifecycle.installations import describe_replaced
from peft_daemon.lifecycle.runtime_info import DaemonInfo, find_running_tuning
from peft_daemon.lifecycle.sockets import socket_folder
from peft_daemon.metrics import Metrics
from peft_daemon.models.catalogue import ModelEntry, memory_shortage, open_catalogue
from peft_daemon.models.optimized import ModelFile
from peft_daemon.models.store import ModelStore, open_store
from peft_daemon.models.verifier import ModelVerifier
from peft_daemon.next_edit.service import NextEditService
from peft_daemon.routes import chat, learning, llama_server, native, openai, openapi
from peft_daemon.routes.middleware import AccessMiddleware, Activity, ActivityMiddleware
from peft_daemon.routes.responses import ERROR_HANDLERS

log = logging.getLogger("peft_daemon.routes")

NEVER_S = 31_536_000.0
"""A year: how long an engine stays loaded that is only to make room for another."""
CLOSE_S = 1.0
"""How long what runs may take to end before the engine is ended under it."""


@dataclass(frozen=True)
class WatchedModel:
    """A base model on this machine: its file, which is verified while it is used, and the engine that loads it."""

    entry: ModelEntry
    verifier: ModelVerifier
    engine: Engine
    slots: int
    speed: EngineSpeed
    """How fast the engine was with this model when earlier daemons served it."""
    speed_key: str

    async def watch(self) -> None:
        """Check the file until cancelled; a damaged one is loaded again, which says what is wrong."""
        if isinstance(self.engine, ReloadableEngine):
            await self.verifier.watch(self.engine.reload)


def create_app(settings: Settings, paths: Paths, info: DaemonInfo, activity: Activity) -> Starlette:
    """The application of one daemon; its lifespan starts and stops the engines.

    Raises NotFound when a base model is unknown or not fetched yet, InvalidInput when the engine is not installed,
    Forbidden where code would be sent to a server that the user has not agreed to.
    """
    registry, metrics, recent_errors = AdapterRegistry(paths.adapters), Metrics(), RecentErrors()
    context = RepositoryContext(lambda path: registry.context_tokens(path, settings))
    by_task = open_catalogue(paths).by_task(settings)
    fill = by_task[Task.FILL]

    ceiling = MemoryCeiling(settings)

    def is_busy() -> bool:
        return service.active > 0

    first = _watched_model(settings, paths, fill, registry, ceiling, states=paths.kv_states, busy=is_busy)
    engine = _main_engine(settings, paths, fill, registry, first.engine, ceiling=ceiling if _others(by_task) else None)
    served = ModelInstance(
        settings, fill, engine, registry, metrics.generated, slots=first.slots, known_speed=first.speed
    )
    local, models, engines = [first], dict.fromkeys(Task, served), [engine]
    folders = {Task.INTENT: paths.intent_kv_states, Task.EDIT: paths.edit_kv_states}
    for tasks in _others(by_task):
        entry, states = by_task[tasks[0]], folders.pop(tasks[0])
        other = _watched_model(settings, paths, entry, registry, ceiling, states=states, busy=is_busy)
        seldom = ceiling.watched(entry, on_demand(other.engine))
        instance = ModelInstance(
            settings,
            entry,
            seldom,
            registry,
            metrics.generated,
            slots=other.slots,
            known_speed=other.speed,
            beside=served,
        )
        models |= dict.fromkeys(tasks, instance)
        local.append(other)
        engines.append(seldom)
    service = CompletionService(settings, models, registry, context, metrics)
    feedback = FeedbackStore(paths.feedback_file, keeps_text=settings.feedback == "text")
    learner = Learner(
        settings,
        paths,
        registry,
        LearnedBase(fill.sha256, fill.bytes),
        lambda: activity.idle_s,
        machine=MachineReader(paths, ceiling.free_bytes),
    )
    learning_service = LearningService(learner)
    activity.serve_background_work(learner.request_began, lambda: learner.is_running)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        logging.getLogger().addHandler(recent_errors)
        await _start(engines, first.engine)
        await asyncio.to_thread(_remove_all, folders.values())
        watching = [asyncio.create_task(watch) for watch in (*(model.watch() for model in local), ceiling.watch())]
        importing = asyncio.create_task(asyncio.to_thread(_import_shipped, settings, paths))
        opening = asyncio.create_task(asyncio.to_thread(_open_feedback, feedback, service.eagerness))
        learner.start()
        try:
            yield
        finally:
            ending = asyncio.create_task(learner.close())
            _end_watching(local, watching)
            closing = asyncio.create_task(service.close())
            # What waits for an engine that hangs ends with the engine.
            await asyncio.wait((closing,), timeout=CLOSE_S)
            await asyncio.gather(*(each.stop() for each in engines))
            await closing
            await asyncio.to_thread(_keep_speeds, KnownSpeeds(paths.known_speeds), local, service.distinct_models)
            await context.stop()
            await importing
            await opening
            await ending
            logging.getLogger().removeHandler(recent_errors)

    def status() -> DaemonStatus:
        return DaemonStatus(
            version=__version__,
            protocol=PROTOCOL_VERSION,
            pid=os.getpid(),
            uptime_s=time.monotonic() - service.began,
            address=info.address,
            config_digest=info.config_digest,
            model=fill.id,
            engine=served.engine.status(),
            intent_engine=models[Task.INTENT].engine.status() if models[Task.INTENT] is not served else None,
            edit_engine=models[Task.EDIT].engine.status()
            if models[Task.EDIT] not in (served, models[Task.INTENT])
            else None,
            active_requests=service.active,
            queued_requests=service.queued,
            completed_requests=service.completed,
            memory_bytes=service.memory_bytes(),
            memory_counted_bytes=ceiling.last.counted,
            memory_limit_bytes=ceiling.limit_bytes,
            context=context.status(),
            speed=ServingSpeed(service.speed.reading, service.speed.writing),
            limits=service.limits(),
            left_out=service.left_out(),
            warnings=_warnings(local, ceiling, paths),
            # What is learned in the background gives way to completions, so it is no reason for a warning.
            tuning=notice.name if (notice := find_running_tuning(paths)) and notice.name != learner.name else "",
            learning=learning_service.line(),
            decisions=dict(service.decisions.counts),
            recent_errors=recent_errors.newest_first,
            log_file=str(paths.log_file),
        )

    routes = [
        *native.routes(
            service,
            NextEditService(service),
            stop=activity.request_stop,
            status=status,
            feedback=None if settings.feedback == "off" else feedback,
            context=context,
            learner=learner,
        ),
        *learning.routes(learning_service),
        *openai.routes(service),
        *chat.routes(service),
        *llama_server.routes(service),
    ]
    return Starlette(
        routes=[*routes, openapi.document_route(routes)],
        middleware=[
            Middleware(AccessMiddleware, token=info.token or None),
            Middleware(ActivityMiddleware, activity=activity),
        ],
        exception_handlers=ERROR_HANDLERS,
        lifespan=lifespan,
    )


def _remove_all(folders: Iterable[Path]) -> None:
    """Remove what the engines of an earlier `intent_model` or `edit_model` saved: no engine would."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _others(by_task: Mapping[Task, ModelEntry]) -> list[tuple[Task, ...]]:
    """Return the tasks of each model other than the one that fills in."""
    others: dict[str, tuple[Task, ...]] = {}
    for task, entry in by_task.items():
        if entry.id != by_task[Task.FILL].id:
            others[entry.id] = (*others.get(entry.id, ()), task)
    return list(others.values())


def _watched_model(
    settings: Settings,
    paths: Paths,
    entry: ModelEntry,
    registry: AdapterRegistry,
    ceiling: MemoryCeiling,
    *,
    states: Path,
    busy: Callable[[], bool],
) -> WatchedModel:
    """Prepare a model of this machine with an engine of its own, whose KV states are saved in ``states``.

    Raises NotFound where its file was not fetched yet, InvalidInput when the engine is not installed or cannot run it.
    """
    store, engine_id = open_store(settings, paths), factory.engine_id(settings, entry)
    file = _served_file(store, entry, settings)
    # Reads kept measurements; no program is started to choose one.
    choice = choose_program(settings, paths, entry.sha256)
    slots = factory.slot_count(settings, file.path)
    speed_key = factory.speed_key(settings, entry, file.sha256, choice.program)
    speed = KnownSpeeds(paths.known_speeds).get(speed_key)
    verifier = ModelVerifier(store, entry, uses_copy=bool(file.recipe), busy=busy)
    engine = factory.create_engine(
        msgspec.structs.replace(settings, slots=slots),
        model_id=entry.id,
        model_path=file.path,
        context_tokens=context_tokens(settings, entry.context_tokens, speed),
        socket_folder=private_folder(socket_folder(paths)),
        adapters=_likely(registry, entry, engine_id),
        adapters_folder=private_folder(registry.folder),
        states=(states, file.sha256),
        checks=LoadChecks(
            verifier.file_to_load,
            partial(registry.check_lease, engine=engine_id),
            verifier.suspect,
            ceiling.room_for(entry),
        ),
        speed=speed,
        measured=choice.program if choice.chosen else None,
        problem=choice.problem,
    )
    return WatchedModel(entry, verifier, engine, slots, speed, speed_key)


def _end_watching(local: Sequence[WatchedModel], watching: Sequence[asyncio.Task[None]]) -> None:
    for model in local:
        model.verifier.close()
    for task in watching:
        task.cancel()


def _keep_speeds(speeds: KnownSpeeds, local: Sequence[WatchedModel], served: Sequence[ModelInstance]) -> None:
    """Keep how fast the engines were for the next daemon."""
    for model, instance in zip(local, served, strict=True):
        if instance.limits.speed != model.speed:
            speeds.put(model.speed_key, instance.limits.speed)


def _warnings(local: Sequence[WatchedModel], ceiling: MemoryCeiling, paths: Paths) -> list[str]:
    """What the user can do something about: memory that is missing, and clients that do not fit together."""
    unloaded = [each.entry for each in local if each.engine.status().pid is None]
    shortage = ""
    if len(local) > 1 and unloaded:
        shortage = memory_shortage(unloaded, read_memory().available)
    return [line for line in (shortage, ceiling.warning, *describe_replaced(paths)) if line]


async def _start(engines: Sequence[Engine], local: Engine) -> None:
    """Start all engines; the first loads ``local`` now even if it unloads it later, so that no request waits for it."""
    for each in engines:
        await each.start()
    if isinstance(engines[0], OnDemandEngine):
        await local.start()


def _main_engine(
    settings: Settings,
    paths: Paths,
    model: ModelEntry,
    registry: AdapterRegistry,
    local: Engine,
    *,
    ceiling: MemoryCeiling | None,
) -> Engine:
    """The engine that fills in: ``local``, as one that unloads itself where that is set, or a server before it.

    With a ``ceiling`` it makes room for another model's engine where both do not fit.
    """
    if settings.engine == UPSTREAM:
        return _upstream(settings, paths, model, registry, local)
    if ceiling is not None:
        return ceiling.watched(model, on_demand(local, settings.unload_after_s or NEVER_S))
    return on_demand(local, settings.unload_after_s) if settings.unload_after_s else local


def _upstream(settings: Settings, paths: Paths, model: ModelEntry, registry: AdapterRegistry, local: Engine) -> Engine:
    """The engine that asks a server, and ``local`` when that does not answer."""
    from peft_daemon.engines.upstream.engine import UpstreamEngine  # noqa: PLC0415  (few users have a server)
    from peft_daemon.engines.upstream.options import upstream_options  # noqa: PLC0415

    options = upstream_options(
        settings,
        paths,
        model_id=model.id,
        context_tokens=context_tokens(settings, model.context_tokens),
        peft_folder=lambda digest: registry.lease(registry.get(digest), engine=TORCH).path,
    )
    return UpstreamEngine(options, local)


def _served_file(store: ModelStore, model: ModelEntry, settings: Settings) -> ModelFile:
    """The file to serve; one whose size or time is not the noted one is hashed first."""
    try:
        return store.file_to_serve(model, settings)
    except Conflict:
        store.verify(model)
        return store.file_to_serve(model, settings)


def _likely(registry: AdapterRegistry, model: ModelEntry, engine: str) -> tuple[AdapterLease, ...]:
    """The adapters in use that this engine can serve with this base."""
    try:
        fitting = [m for m in registry.in_use() if m.base_sha256 == model.sha256 and engine in m.engines]
        return tuple(registry.lease(manifest, manifest.scale, engine=engine) for manifest in fitting)
    except PeftDaemonError:
        # A damaged registry is told to whoever asks for an adapter; the base serves all the same.
        return ()


def _import_shipped(settings: Settings, paths: Paths) -> None:
    try:
        new = update_shipped_adapters(settings, paths)
    except (PeftDaemonError, OSError) as error:
        log.warning("the adapters of the package could not be imported: %s", error)
    except Exception:  # nobody else would hear of it
        log.exception("the adapters of the package could not be imported")
    else:
        for manifest in new:
            log.info("imported %s, which comes with the package", manifest.name)


def _open_feedback(feedback: FeedbackStore, eagerness: EagernessFromFeedback) -> None:
    """Have what an earlier version kept without asking set apart, and its secrets removed, before anything is added.

    Then take the outcomes of earlier days into account.
    """
    try:
        feedback.counts()
        eagerness.remember(row.record for row in feedback.rows())
    except PeftDaemonError as error:
        log.warning("%s", error.line)
