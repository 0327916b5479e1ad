"""What travels between the daemon and its clients: typed values, validated when decoded.

Positions, prompts and files never travel: a client sends the text before and after the cursor. Every number has
its bounds here, so that no handler has to check one again. What the daemon tells of itself is in ``status_types``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from peft_core.paths import MAX_PATH_CHARS
from peft_core.wire_errors import ErrorBody

PROTOCOL_VERSION = 1
"""A newer daemon of the same protocol serves older clients: whoever takes a field of an answer away, adds a value to an
enumeration of one, or requires a new field of a request, raises it."""

MAX_TEXT = 2_000_000
"""Characters of prefix, suffix or one context chunk. Clients cut longer documents around the cursor."""
MAX_BODY = 16_000_000
"""Bytes of a request body."""

Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Name = Annotated[str, Meta(max_length=200)]
ShortText = Annotated[str, Meta(max_length=4096)]
TokenCount = Annotated[int, Meta(ge=1, le=4096)]
Milliseconds = Annotated[int, Meta(ge=1, le=600_000)]
Scale = Annotated[float, Meta(ge=0.0, le=2.0)]
Temperature = Annotated[float, Meta(ge=0.0, le=2.0)]
Probability = Annotated[float, Meta(gt=0.0, le=1.0)]
Confidence = Annotated[float, Meta(ge=0, le=1)]
"""How likely a text is right."""
Seed = Annotated[int, Meta(ge=0, le=2**32 - 1)]

LONGEST_WINDOW = 8000
"""Characters of text that feedback keeps on either side of a suggestion."""
LONGEST_SUGGESTION = 64_000
Window = Annotated[str, Meta(max_length=LONGEST_WINDOW)]
Suggestion = Annotated[str, Meta(max_length=LONGEST_SUGGESTION)]
Count = Annotated[int, Meta(ge=0, le=10 * LONGEST_SUGGESTION)]

BASE = "base"
"""The adapter name that means: no adapter."""


class Task(StrEnum):
    """What is asked of the model; each may have an adapter of its own."""

    FILL = "fill"
    """The middle of code from its two ends (fill-in-the-middle)."""
    INTENT = "intent"
    """Code from a sentence."""
    EDIT = "edit"
    """The next edit: lines that exist, written again as they will be."""


COMPLETION_TASKS = (Task.FILL, Task.INTENT)
"""Those of an adapter whose record names none: adapters for edits name theirs."""


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    """The model, a stop string or the end of the block ended it."""
    LENGTH = "length"
    """``max_tokens`` was reached."""
    TIMEOUT = "timeout"
    """``time_budget_ms`` was reached; the text holds what was complete by then."""
    SUPERSEDED = "superseded"
    """A newer request for the same document arrived."""
    CANCELLED = "cancelled"
    """The client went away or cancelled."""
    EMPTY = "empty"
    """Nothing worth showing: e.g. a word follows the cursor, or post-processing left nothing."""
    OFF = "off"
    """Completions are off in such a document; ``CompleteResponse.why`` says why. The model was not asked."""


class Origin(StrEnum):
    """Where a completion's text came from."""

    MODEL = "model"
    """A generation that this request began."""
    JOINED = "joined"
    """A generation that an earlier request had begun and that was still running."""
    KEPT = "kept"
    """An earlier answer that goes on with what has been typed since; the model was not asked."""


class ContextChunk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A piece of another file that helps to complete this one."""

    path: Annotated[str, Meta(max_length=MAX_PATH_CHARS)]
    text: Text


class Eagerness(StrEnum):
    """How readily an editor shows what the model wrote."""

    LOW = "low"
    """Only what is very likely right."""
    MEDIUM = "medium"
    HIGH = "high"
    """All but what is very likely wrong."""
    AUTO = "auto"
    """By what the user took of late; ``medium`` until that says something."""


class Scope(StrEnum):
    """A part of a document that is not code."""

    COMMENT = "comment"
    STRING = "string"


class SamplingParams(msgspec.Struct, frozen=True):
    """How the next token is chosen, from a client's request down to the engine."""

    temperature: Temperature = 0.0
    """0 is greedy."""
    top_p: Probability = 1.0
    seed: Seed = 0


class CompleteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of ``POST /v1/complete``.

    With ``task`` null the daemon decides: INTENT when ``intent`` is given or the cursor stands below a comment or
    docstring that asks for code, else FILL.
    """

    prefix: Text = ""
    suffix: Text = ""
    intent: Text = ""
    task: Task | None = None
    language: Name = "python"
    path: ShortText | None = None
    """Path of the document on this machine; picks the repository's adapter. Never opened by the daemon."""
    workspace: ShortText | None = None
    """Absolute path of the folder the document belongs to; the daemon may read its source files for context."""
    document: ShortText | None = None
    """Key for "newest request wins"; requests without it never supersede each other."""
    line: Annotated[int, Meta(ge=0)] = 0
    """Number of the cursor's line, from 1, for `peft-daemon why`; 0: not told."""
    context: Annotated[list[ContextChunk], Meta(max_length=64)] = []
    automatic: bool = False
    """A keystroke asked, not a person: the daemon may wait for a pause in typing before it starts the model."""
    eagerness: Eagerness | None = None
    """Leave out what the model is too unsure of; null: nothing is left out for that."""
    silent_in: Annotated[list[Scope], Meta(max_length=len(Scope))] = []
    """Begin no suggestion there; one that began before goes on, and a comment that asks for code gets it."""
    show_after_ms: Milliseconds | None = None
    """Answer with what is complete by then, and ``more``, while the model goes on; null: with all of it."""
    adapter: Name | None = None
    """Name or digest; ``base`` for none; null to let the daemon pick by task and path."""
    scale: Scale | None = None
    max_tokens: TokenCount | None = None
    time_budget_ms: Milliseconds | None = None
    temperature: Temperature = 0.0
    top_p: Probability = 1.0
    seed: Seed = 0
    stop: Annotated[list[Annotated[str, Meta(min_length=1, max_length=200)]], Meta(max_length=16)] = []
    prose: bool = False
    """Complete in plain text and Markdown too, which the user has turned on. No field turns on a file with secrets."""
    single_line: bool | None = None
    """True: one line; False: may span lines; null: decided from the code around the cursor."""
    stream: bool = False


class AdapterUse(msgspec.Struct, frozen=True):
    """The adapter a completion was made with."""

    name: str
    digest: str
    scale: float


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of one request went; milliseconds and token counts."""

    queue_ms: float = 0.0
    """Waiting for a free engine slot (or for the engine to become ready)."""
    prompt_tokens: int = 0
    prompt_evaluated: int = 0
    """Prompt tokens the engine had to compute ..."""
    prompt_reused: int = 0
    """... and those it found in its KV cache."""
    prompt_ms: float = 0.0
    first_token_ms: float = 0.0
    """From the request's arrival at the engine to its first token."""
    decode_tokens: int = 0
    decode_ms: float = 0.0
    engine_ms: float = 0.0
    """From the request's arrival at the engine to its last token."""
    total_ms: float = 0.0
    """From arrival at the daemon to the end."""


class CompleteResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``POST /v1/complete`` and ``/v1/edit``, and the last event of their streams."""

    id: str
    text: str
    finish_reason: FinishReason
    task: Task
    model: str
    """What wrote the text: the id of a model here, or the upstream server's name of its own."""
    adapter: AdapterUse | None
    replace_after: int = 0
    """How many characters after the cursor the text overwrites (an auto-inserted ``)``)."""
    origin: Origin = Origin.MODEL
    more: bool = False
    """The model is still writing; the same request made again is answered with more of it."""
    confidence: Confidence | None = None
    """How likely the text is right, by the model's own probabilities; null: the engine does not tell them."""
    why: str = ""
    """Where completions are off: a sentence for the user."""
    timings: Timings = Timings()


class WarmResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``POST /v1/warm``, whose body is a CompleteRequest that is likely to come."""

    warm: bool
    """Whether the whole prompt is in the engine's cache now; false when a completion went first."""
    timings: Timings = Timings()


class DeltaEvent(msgspec.Struct, frozen=True, tag="delta", tag_field="type"):
    """A piece of text that the final text will begin with (already post-processed)."""

    text: str


class FinalEvent(msgspec.Struct, frozen=True, tag="final", tag_field="type"):
    """The end of a stream."""

    response: CompleteResponse


class ErrorEvent(msgspec.Struct, frozen=True, tag="error", tag_field="type"):
    """The stream broke; nothing follows."""

    error: ErrorBody


StreamEvent = DeltaEvent | FinalEvent | ErrorEvent


MAX_INSTRUCTION = 2000
"""Characters of what an edit is to do."""


class EditKind(StrEnum):
    """What an edit of a part of a document is for."""

    CHANGE = "change"
    """Change it as the instruction says."""
    DOCSTRING = "docstring"
    """Describe the function: the answer is its documentation comment, without indentation."""
    TEST = "test"
    """Test the function: the answer is code for a file of tests."""


class EditRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of ``POST /v1/edit``: whole lines of a document, and what the model is to do with them."""

    selection: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
    before: Text = ""
    """The document above the selection ..."""
    after: Text = ""
    """... and below it; as much of both is shown as there is room for."""
    kind: EditKind = EditKind.CHANGE
    instruction: Annotated[str, Meta(max_length=MAX_INSTRUCTION)] = ""
    name: Name = ""
    """Name of the function that is described or tested ..."""
    owner: Name = ""
    """... and of the class whose method it is."""
    language: Name = "python"
    path: ShortText | None = None
    """Path of the document on this machine. Never opened by the daemon."""
    max_tokens: TokenCount | None = None
    """Longest answer; null: by the length of the selection."""
    stream: bool = False


LONGEST_EDIT = 2_000
"""Characters of one edited region."""
MOST_EDITS = 8
MOST_SAVED = 256

FullPath = Annotated[str, Meta(min_length=1, max_length=MAX_PATH_CHARS)]


class EditedRegion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lines of an open file that were edited a short while ago, as they are now."""

    path: FullPath
    text: Annotated[str, Meta(min_length=1, max_length=LONGEST_EDIT)]


class ContextChanged(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of ``POST /v1/context/changed``: what an editor did in one workspace. Paths are absolute."""

    workspace: FullPath
    saved: Annotated[list[FullPath], Meta(max_length=MOST_SAVED)] = []
    """Files that were written, made or deleted: the index reads them anew."""
    edits: Annotated[list[EditedRegion], Meta(max_length=MOST_EDITS)] | None = None
    """All regions that were edited lately, the newest first; they replace those told before. Null: as before."""


class ContextResponse(msgspec.Struct, frozen=True):
    """Answer of ``POST /v1/context/changed``."""

    taken: bool
    """False where the daemon shows no code of other files (``repository_context``, the gate), or not of this folder."""


class Outcome(StrEnum):
    """What became of a suggestion."""

    ACCEPTED = "accepted"
    PARTLY = "partly"
    """Some words or lines of it were accepted."""
    TYPED = "typed"
    """Everything it offered was typed by hand."""
    REJECTED = "rejected"


class FeedbackRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of ``POST /v1/feedback``: one suggestion that an editor showed, and what became of it."""

    offer: Annotated[str, Meta(min_length=1, max_length=100)]
    """Identifies it; a second record of the same offer is ignored."""
    outcome: Outcome
    language: Name
    path: ShortText | None = None
    prefix: Window = ""
    """What stood before the suggestion ..."""
    suffix: Window = ""
    """... and behind the cursor, where ..."""
    replaced: Count = 0
    """... so many characters would be overwritten."""
    suggestion: Suggestion
    shown: Count
    """Characters it offered to write."""
    accepted: Count = 0
    """Characters of it the editor inserted."""
    stood: Count = 0
    """Characters of it that stood in the document when it ended, typed ones included ..."""
    kept: Count | None = None
    """... those of them that still did when it was looked at again ..."""
    now: Suggestion | None = None
    """... and what stood there then. Null: it was rejected."""
    model: Name
    adapter: AdapterUse | None = None
    confidence: Confidence | None = None
    """That of the answer that was shown first."""
    latency_ms: Annotated[int, Meta(ge=0)] = 0
    text_agreed: bool = False
    """The user has agreed in the editor that text is kept. Without it only numbers are, unless the daemon's own
    setting says that text is."""
    next_edit: bool = False
    """A next edit, which changes lines that exist; what is learned of completions does not use it."""

    def counts(self) -> FeedbackRequest:
        """The same with numbers only: no text, and not where it was."""
        return msgspec.structs.replace(
            self, path=None, prefix="", suffix="", replaced=0, suggestion="", now=None, text_agreed=False
        )


class FeedbackResponse(msgspec.Struct, frozen=True):
    """Answer of ``POST /v1/feedback``."""

    recorded: bool
    """False for a second record of an offer, and where the setting ``feedback`` is off."""


class AdapterSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One adapter as lists show it."""

    name: str
    digest: str
    base: str
    base_family: str
    method: str
    rank: int
    task: str
    size_bytes: int
    created: str
    active_for: list[str] = []
    """Where it is in use: ``fill``, ``intent``, or ``fill@/path/of/repository``."""
    damaged: str = ""
    """What is wrong with its files, where that is known: it answers nothing then."""


class AdapterList(msgspec.Struct, frozen=True):
    """Answer of ``GET /v1/adapters`` and ``POST /v1/adapters/use``."""

    adapters: list[AdapterSummary]


class ShutdownResponse(msgspec.Struct, frozen=True):
    """Answer of ``POST /v1/shutdown``."""

    stopping: bool = True


class UseAdapterRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of ``POST /v1/adapters/use``: which adapter serves a task, everywhere or below one folder."""

    name: Name
    task: Task | None = None
    """Null: those the adapter was trained for; of ``base`` both."""
    repository: ShortText | None = None
    """Absolute path; null: everywhere no repository says otherwise."""


class LearningAction(StrEnum):
    """What a user wants of learning in the background."""

    ON = "on"
    OFF = "off"
    LATER = "later"
    """Asked, and answered with "not now"; an editor tells it before it asks, so that no other asks too."""
    NOW = "now"
    """One run, without waiting for an idle machine."""
    ROLLBACK = "rollback"
    """Let serve what served before the last version."""
    PAUSE = "pause"
    """Learn nothing for a while, in no repository."""
    RESUME = "resume"


class LearningRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of ``POST /v1/learning``; the answer is ``status_types.LearningStatus``."""

    action: LearningAction
    repository: FullPath
    """Absolute path of the repository, or of a folder in it; to pause and to resume it need not be in one."""
    seconds: Annotated[float, Meta(gt=0)] | None = None
    """Of a pause; null: until it is resumed."""
