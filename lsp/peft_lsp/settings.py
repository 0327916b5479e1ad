"""The editor's settings in its section ``peft-daemon``, in general and for each open document.

A document's settings are requested once, when they are first needed, and kept until it is closed or the settings or the
folders of the workspace change, so a keystroke costs no message. A client that cannot be asked has general settings
only. A slow client is waited for once; its answer is used when it comes.

An invalid value never stops the server: the default is used instead, and the user is told once. Unknown keys belong to
the editor's extension and are ignored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from peft_core.api_types import Eagerness, Name, Scope, TokenCount
from peft_core.code.languages import language_id
from peft_core.decisions import Decider
from peft_core.errors import InvalidInput
from peft_core.privacy.files import PROSE_LANGUAGES, prose_language, uri_path, why_secret

if TYPE_CHECKING:
    from peft_core.code.patterns import FilePatterns

log = logging.getLogger(__name__)

MAX_ANSWER_S = 5.0
"""How long to wait for the client's answer; afterwards the known settings are used until it comes."""

AskClient = Callable[[str | None], Coroutine[Any, Any, object]]
"""Return the client's settings as JSON, for a document's URI or in general; None if it sends none."""

TimeBudgetMs = Annotated[int, Meta(ge=50, le=600_000)]


class EditorSettings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The settings of an editor; null means the default."""

    enabled: bool = True
    adapter: Annotated[Name, Meta(min_length=1)] | None = None
    """Name or digest of the adapter for every request, ``base`` for none; null: the daemon decides."""
    max_tokens: TokenCount | None = None
    time_budget_ms: TimeBudgetMs | None = None
    disabled_languages: list[str] = msgspec.field(default_factory=lambda: list(PROSE_LANGUAGES))
    """Language ids without completions. Files that hold secrets never have completions."""
    disabled_files: list[str] = []
    """Patterns of files without completions, as in a .gitignore; those with a folder count anywhere too."""
    silent_in: Annotated[list[Scope], Meta(max_length=len(Scope))] = msgspec.field(default_factory=lambda: list(Scope))
    """Where no suggestion begins that nobody asked for by hand; a comment that asks for code gets it."""
    delay_ms: Annotated[int, Meta(ge=0, le=5000)] | None = None
    """Delay from a keystroke to the request to the daemon. Null: no delay here; the daemon decides when to ask the
    model. A request made by hand never waits."""
    show_after_ms: Annotated[int, Meta(ge=0, le=600_000)] = 300
    """Show the complete lines after this time, and the rest when it is ready; 0: show all of it when it is ready."""
    eagerness: Literal["low", "medium", "high", "auto", "all"] = "auto"
    """How readily suggestions are shown that nobody asked for by hand; ``all``: however unsure the model is."""
    next_edits: Literal["off", "on"] = "off"
    """Whether changes of existing lines are suggested, also away from the cursor, that follow from what was changed."""
    feedback: Literal["counts", "text", "off"] | bool | None = None
    """What is recorded on this machine about suggestions: numbers, also the text around them, or nothing. Null or true:
    as the daemon's own setting says. False: nothing."""
    completion: Literal["auto", "always", "never"] = "auto"
    """Whether the model's text is in the completion list. auto: only if the editor cannot show inline completions. The
    list is announced at the start, so the initialization options must have other values than auto too."""

    def why_off(self, uri: str, language: str) -> str | None:
        """Return a sentence for the user on why a document gets no suggestions; None if it gets them.

        Call it before a document is shown to the model. The daemon refuses files with secrets too.
        """
        if (secret := why_secret(uri, language)) is not None:
            return secret
        if not self.enabled:
            return "suggestions are switched off"
        if self.disables(language):
            off = prose_language(language) or language
            return f"suggestions are off for {off}: see the setting 'disabledLanguages'"
        if self.disables_file(uri):
            return "suggestions are off for files of this name: see the setting 'disabledFiles'"
        return None

    def who_turns_off(self, uri: str, language: str) -> Decider:
        """Return the part that keeps a document from getting suggestions, where ``why_off`` says why."""
        if why_secret(uri, language) is not None:
            return Decider.SECRET_FILE
        if not self.enabled:
            return Decider.SWITCHED_OFF
        return Decider.LANGUAGE if self.disables(language) else Decider.FILE_PATTERN

    def disables(self, language: str) -> bool:
        """Return whether documents of this language get no suggestions, by any editor's name for it."""
        disabled = {*self.disabled_languages, *map(language_id, self.disabled_languages)}
        return not disabled.isdisjoint((language, language_id(language), prose_language(language)))

    def disables_file(self, uri: str) -> bool:
        """Return whether a document gets no suggestions because of its name or folder."""
        return bool(self.disabled_files) and _disables(tuple(self.disabled_files), uri_path(uri))

    @property
    def automatic_eagerness(self) -> Eagerness | None:
        """How sure the model must be of what nobody asked for by hand; None: however unsure."""
        return None if self.eagerness == "all" else Eagerness(self.eagerness)


@lru_cache(maxsize=4096)
def _disables(patterns: tuple[str, ...], path: str) -> bool:
    return file_patterns(patterns).match(path.lstrip("/"))


@lru_cache(maxsize=8)
def file_patterns(patterns: tuple[str, ...]) -> FilePatterns:
    """Make patterns of file names of those in a setting; one with a folder in it counts below any other.

    Raises InvalidInput for wrong ones.
    """
    from peft_core.code.patterns import FilePatterns  # noqa: PLC0415  (most editors have none)

    anywhere = (each if each.startswith(("/", "**/", "!")) or "/" not in each else f"**/{each}" for each in patterns)
    return FilePatterns(list(anywhere), "the setting 'disabledFiles'")


_CHECKS: Mapping[str, Callable[[Any], object]] = {"disabled_files": lambda patterns: file_patterns(tuple(patterns))}
"""What a value must be good for, by field."""


def read_settings(raw: object) -> tuple[EditorSettings, list[str]]:
    """Read settings from the editor's JSON; also return a sentence for each invalid value."""
    if raw is None or raw == []:  # an empty table of Lua becomes a list
        return EditorSettings(), []
    if not isinstance(raw, dict):
        return EditorSettings(), [f"the settings must be an object, not {type(raw).__name__}"]
    values: dict[str, Any] = {}
    complaints = []
    for field in msgspec.structs.fields(EditorSettings):
        value = raw.get(field.encode_name)
        if value is None:
            continue
        try:
            converted = msgspec.convert(value, field.type)
            msgspec.json.encode(converted)  # half of a surrogate pair could not be sent to the daemon
            _CHECKS.get(field.name, lambda _: None)(converted)
            values[field.name] = converted
        except (ValueError, RecursionError, InvalidInput) as error:
            complaints.append(f"'{field.encode_name}' is {value!r}: {error}; the default is used")
    return EditorSettings(**values), complaints


class SettingsCache:
    """The settings of one editor, in general and for each open document, as the client sent them."""

    def __init__(
        self, options: object, ask: AskClient, complain: Callable[[str], None], changed: Callable[[], None]
    ) -> None:
        self.general, _ = read_settings(options)  # complaints come when the settings are loaded
        self._options = options
        self._ask, self._complain, self._changed = ask, complain, changed
        self._documents: dict[str, asyncio.Task[EditorSettings]] = {}
        self._late: set[asyncio.Task[Any]] = set()
        """Requests that were not answered within ``MAX_ANSWER_S``."""
        self._asking: asyncio.Task[object] | None = None
        """The newest request for the general settings."""

    @property
    def enabled_somewhere(self) -> bool:
        """Whether suggestions are on in general, or for some open document."""
        known = (task for task in self._documents.values() if task.done() and not task.cancelled())
        return self.general.enabled or any(task.result().enabled for task in known)

    async def load(self, pushed: object = None) -> None:
        """Load the general settings: the client's answer, else ``pushed``, else its initialization options.

        Settings of documents are requested again when they are next needed.
        """
        self._documents.clear()
        asking = self._asking = asyncio.create_task(self._ask(None))
        in_time = await self._answered(asking)
        raw = asking.result() if in_time else None
        raw = pushed if raw is None else raw
        self._take(self._options if raw is None else raw)
        if not in_time:
            asking.add_done_callback(self._take_late)

    async def of(self, uri: str) -> EditorSettings:
        """Return the settings for an open document; asks the client if they are not known."""
        task = self._documents.get(uri)
        if task is None:
            task = self._documents[uri] = asyncio.create_task(self._pull(uri))
        return task.result() if await self._answered(task) else self.general

    def known(self, uri: str) -> EditorSettings:
        """Return the settings for an open document if they are known, else the general ones."""
        task = self._documents.get(uri)
        told = task is not None and task.done() and not task.cancelled() and task.exception() is None
        return task.result() if task is not None and told else self.general

    def forget(self, uri: str) -> None:
        """Drop the settings of a document that was closed."""
        if self._documents.pop(uri, None) is not None:
            self._changed()

    def forget_documents(self) -> None:
        """Drop the settings of all documents, because the folders of the workspace have changed."""
        self._documents.clear()

    async def _answered(self, task: asyncio.Task[Any]) -> bool:
        """Return whether the client has answered; waits for it up to ``MAX_ANSWER_S``, but only once."""
        if not task.done() and task not in self._late:
            # ``wait`` does not cancel the task: other requests wait for it too.
            await asyncio.wait((task,), timeout=MAX_ANSWER_S)
            if not task.done():
                log.warning("the client has not sent its settings in %g s", MAX_ANSWER_S)
                self._late.add(task)
                task.add_done_callback(self._late.discard)
        return task.done()

    def _take(self, raw: object) -> None:
        self.general = self._read(raw)
        self._changed()

    def _take_late(self, asking: asyncio.Task[object]) -> None:
        if asking is self._asking and not asking.cancelled() and asking.result() is not None:
            self._take(asking.result())

    async def _pull(self, uri: str) -> EditorSettings:
        raw = await self._ask(uri)
        found = self.general if raw is None else self._read(raw)
        # Later, when this task is done and its result is known.
        asyncio.get_running_loop().call_soon(self._changed)
        return found

    def _read(self, raw: object) -> EditorSettings:
        found, complaints = read_settings(raw)
        for complaint in complaints:
            self._complain(f"in the editor's settings {complaint}")
        return found
