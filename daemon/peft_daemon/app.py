"""The daemon's application: engine, service and routes put together for one home."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware

from peft_core import __version__
from peft_core.api_types import PROTOCOL_VERSION
from peft_core.errors import Conflict, PeftDaemonError
from peft_core.files import private_folder
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_core.status_types import TORCH, UPSTREAM, DaemonStatus, ServingSpeed
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.shipped_adapters import update_shipped_adapters
from peft_daemon.completion.service import CompletionService
from peft_daemon.context.repository import RepositoryContext
from peft_daemon.engines import factory
from peft_daemon.engines.base import Engine, LoadChecks, ReloadableEngine
from peft_daemon.engines.limits import KnownSpeeds, context_tokens
from peft_daemon.engines.llamacpp.choice import choose_program
from peft_daemon.feedback import FeedbackStore
from peft_daemon.lifecycle.runtime_info import DaemonInfo, find_running_tuning
from peft_daemon.lifecycle.sockets import socket_folder
from peft_daemon.models.catalogue import ModelEntry, open_catalogue
from peft_daemon.models.optimized import ModelFile
from peft_daemon.models.store import ModelStore, open_store
from peft_daemon.models.verifier import ModelVerifier
from peft_daemon.routes import chat, llama_server, native, openai
from peft_daemon.routes.middleware import AccessMiddleware, Activity, ActivityMiddleware
from peft_daemon.routes.responses import ERROR_HANDLERS

log = logging.getLogger("peft_daemon.routes")

CLOSE_S = 1.0
"""How long what runs may take to end before the engine is ended under it."""


def create_app(settings: Settings, paths: Paths, info: DaemonInfo, activity: Activity) -> Starlette:
    """The application of one daemon; its lifespan starts and stops the engine.

    Raises NotFound when the base model is unknown or not fetched yet, InvalidInput when the engine is not installed,
    Forbidden where code would be sent to a server that the user has not agreed to.
    """
    model, registry = open_catalogue(paths).get(settings.model), AdapterRegistry(paths.adapters)
    store = open_store(settings, paths)
    served = _served(store, model, settings)
    settings = msgspec.structs.replace(settings, slots=factory.slot_count(settings, served.path))
    # Reads kept measurements; no program is started to choose one.
    choice = choose_program(settings, paths, model.sha256)
    speeds, speed_key = KnownSpeeds(paths.known_speeds), factory.speed_key(settings, served.sha256, choice.program)
    known = speeds.get(speed_key)
    verifier = ModelVerifier(store, model, uses_copy=bool(served.recipe), busy=lambda: service.active > 0)
    local = factory.create_engine(
        settings,
        model_id=model.id,
        model_path=served.path,
        context_tokens=context_tokens(settings, model.context_tokens, known),
        socket_folder=private_folder(socket_folder(paths)),
        adapters=_likely(registry, model, factory.engine_id(settings)),
        states=(paths.kv_states, served.sha256),
        checks=LoadChecks(
            verifier.file_to_load, partial(registry.check_lease, engine=factory.engine_id(settings)), verifier.suspect
        ),
        speed=known,
        measured=choice.program if choice.chosen else None,
        problem=choice.problem,
    )
    engine = _upstream(settings, paths, model, registry, local) if settings.engine == UPSTREAM else local
    context = RepositoryContext(settings.repository_context)
    service = CompletionService(settings, model, engine, registry, context, known_speed=known)
    feedback = FeedbackStore(paths.feedback_file, keeps_text=settings.feedback == "text")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await engine.start()
        watching = asyncio.create_task(verifier.watch(local.reload)) if isinstance(local, ReloadableEngine) else None
        importing = asyncio.create_task(asyncio.to_thread(_import_shipped, settings, paths))
        opening = asyncio.create_task(asyncio.to_thread(_open_feedback, feedback))
        try:
            yield
        finally:
            verifier.close()
            if watching is not None:
                watching.cancel()
            closing = asyncio.create_task(service.close())
            # What waits for an engine that hangs ends with the engine.
            await asyncio.wait((closing,), timeout=CLOSE_S)
            await engine.stop()
            await closing
            if service.speed != known:
                await asyncio.to_thread(speeds.put, speed_key, service.speed)
            await context.stop()
            await importing
            await opening

    def status() -> DaemonStatus:
        return DaemonStatus(
            version=__version__,
            protocol=PROTOCOL_VERSION,
            pid=os.getpid(),
            uptime_s=time.time() - service.started,
            address=info.address,
            config_digest=info.config_digest,
            model=model.id,
            engine=service.engine_status(),
            active_requests=service.active,
            queued_requests=service.queued,
            completed_requests=service.completed,
            memory_bytes=service.memory_bytes(),
            context=context.status(),
            speed=ServingSpeed(service.speed.reading, service.speed.writing),
            limits=service.limits(),
            left_out=service.left_out(),
            tuning=notice.name if (notice := find_running_tuning(paths)) else "",
        )

    return Starlette(
        routes=[
            *native.routes(
                service,
                stop=activity.request_stop,
                status=status,
                feedback=None if settings.feedback == "off" else feedback,
                context=context,
            ),
            *openai.routes(service),
            *chat.routes(service),
            *llama_server.routes(service),
        ],
        middleware=[
            Middleware(AccessMiddleware, token=info.token or None),
            Middleware(ActivityMiddleware, activity=activity),
        ],
        exception_handlers=ERROR_HANDLERS,
        lifespan=lifespan,
    )


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


def _served(store: ModelStore, model: ModelEntry, settings: Settings) -> ModelFile:
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


def _open_feedback(feedback: FeedbackStore) -> None:
    """Have what an earlier version kept without asking set apart, and its secrets removed, before anything is added."""
    try:
        feedback.counts()
    except PeftDaemonError as error:
        log.warning("%s", error.line)
