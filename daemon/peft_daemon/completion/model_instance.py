"""A base model as it is served: its engine and queue, the formats in which it is asked, and the adapters that fit it.

The daemon has one for each model that the settings name. Which of them answers a task is decided in ``service``; an
adapter is only ever combined with the model that it was made for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from peft_core.api_types import Task, Timings
from peft_core.errors import InvalidInput, NotFound, UnusableFile
from peft_core.settings import Settings
from peft_daemon.adapters.manifest import AdapterLease, Manifest
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.completion import formats
from peft_daemon.completion.chat import ChatFormat, chat_format_of
from peft_daemon.completion.cursor import Intent
from peft_daemon.completion.formats import PromptFormat
from peft_daemon.completion.job import Limits
from peft_daemon.completion.scheduler import Scheduler
from peft_daemon.completion.stream import Completer
from peft_daemon.engines import limits
from peft_daemon.engines.base import Engine, EngineSpeed, RemoteAdapters, TokenizingEngine
from peft_daemon.models.catalogue import ModelEntry

log = logging.getLogger("peft_daemon.service")


class ModelInstance:
    """One base model with all that is its own.

    ``slots`` requests are decoded at a time. ``on_generated`` is called with the timings of every generation.
    ``known_speed`` is how fast the engine was for earlier daemons. ``beside`` is another model of this daemon, whose
    background work gives way to requests of this one.
    """

    def __init__(
        self,
        settings: Settings,
        entry: ModelEntry,
        engine: Engine,
        registry: AdapterRegistry,
        on_generated: Callable[[Timings], None],
        *,
        slots: int,
        known_speed: EngineSpeed = EngineSpeed(),
        beside: ModelInstance | None = None,
    ) -> None:
        self.entry, self.engine, self.slots = entry, engine, slots
        self.limits = Limits(settings, known_speed)
        self.context_tokens = limits.context_tokens(settings, entry.context_tokens, known_speed)
        """Size of the context that is served, prompt and answer together."""
        self.scheduler: Scheduler = Scheduler(slots, beside=beside.scheduler if beside else None)
        self.completer = Completer(engine, self.scheduler, self.limits, on_generated)
        self.left_out: dict[Task, str] = {}
        """Why the base answered a task's last request although an adapter is in use."""
        self._registry = registry

    @property
    def id(self) -> str:
        """Catalogue id of the base model."""
        return self.entry.id

    @property
    def chat_format(self) -> ChatFormat:
        """How chats are written for the model; raises InvalidInput where that is not known."""
        return chat_format_of(self.format_for(Task.INTENT))

    @property
    def tokenizer(self) -> TokenizingEngine:
        """The model's tokenizer; raises InvalidInput where the engine does not offer it."""
        if not isinstance(self.engine, TokenizingEngine):
            raise InvalidInput(
                f"the {self.engine.id} engine only counts tokens", fix="Set `engine` to llamacpp to see token ids"
            )
        return self.engine

    def format_for(self, task: Task) -> PromptFormat:
        """Return the format in which the model itself is asked; raises NotFound for an unknown id."""
        return formats.of_model(self.entry.prompt_formats, task)

    def format_with(self, intent: Intent | None, manifest: Manifest | None) -> PromptFormat:
        """Return the format that the adapter was trained on where that fits what is asked, else the model's."""
        answered_by = intent.answered_by if intent else Task.FILL
        trained = formats.find(self.entry.prompt_formats, manifest.prompt_format) if manifest else None
        if trained is not None and trained.task is answered_by:
            return trained
        form = self.format_for(answered_by)
        return formats.get(form.in_file) if intent is not None and not intent.given and form.in_file else form

    def adapter_named(self, name: str) -> Manifest | None:
        """Return the adapter that a request names; None for ``base``.

        Raises NotFound, Conflict for another base model, UnusableFile when its files are damaged.
        """
        manifest = self._registry.resolve(Task.FILL, None, name)
        if manifest is not None:
            manifest.require_base(self.id, self.entry.sha256)
            manifest.require_engine(self.engine.id)
            if isinstance(self.engine, RemoteAdapters) and not self.engine.serves(manifest):
                raise self.engine.missing(manifest)
            self._registry.require_intact(manifest, engine=self.engine.id)
        return manifest

    def adapter_in_use(self, task: Task, path: str | None) -> Manifest | None:
        """Return the adapter in use for a task at a path.

        None when there is none, it was made for another base, or its files are damaged or gone: nobody named it in
        the request, so the base answers.
        """
        try:
            manifest = self._registry.resolve(task, path, None)
            if manifest is None or manifest.base_sha256 != self.entry.sha256:
                return None
            if isinstance(self.engine, RemoteAdapters) and not self.engine.serves(manifest):
                return None
            if self.engine.id in manifest.engines:
                self._registry.require_intact(manifest, engine=self.engine.id)
        except (UnusableFile, NotFound) as error:
            if error.line not in self.left_out.values():
                log.warning("the base answers without an adapter: %s", error.line)
            self.left_out[task] = error.line
            return None
        self.left_out.pop(task, None)
        return manifest

    def lease(self, manifest: Manifest | None, scale: float | None) -> AdapterLease | None:
        """Return what the engine needs to apply an adapter, with its own scale unless another is given."""
        if manifest is None:
            return None
        scale = manifest.scale if scale is None else scale
        return self._registry.lease(manifest, scale, engine=self.engine.id)
