"""A service with one model for all tasks, and an engine that a test plays."""

from __future__ import annotations

from peft_core.api_types import Task
from peft_core.settings import Settings
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.completion.model_instance import ModelInstance
from peft_daemon.completion.service import CompletionService
from peft_daemon.context.repository import RepositoryContext
from peft_daemon.engines.base import Engine
from peft_daemon.metrics import Metrics
from peft_daemon.models.catalogue import ModelEntry


def one_model_service(entry: ModelEntry, engine: Engine, registry: AdapterRegistry) -> CompletionService:
    settings, metrics = Settings(), Metrics()
    model = ModelInstance(settings, entry, engine, registry, metrics.generated, slots=1)
    return CompletionService(
        settings, dict.fromkeys(Task, model), registry, RepositoryContext(lambda _path: 0), metrics
    )
