"""What the daemon tells of itself: the answer of ``GET /v1/status`` and its parts."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class IndexState(StrEnum):
    """How far the index of a workspace is."""

    WAITING = "waiting"
    READING = "reading"
    """Not all files are in it yet; what is there is used."""
    READY = "ready"
    FAILED = "failed"


class WorkspaceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The index of one workspace."""

    root: str
    state: IndexState
    files: int = 0
    of: int = 0
    passages: int = 0
    left_out: int = 0
    """Files beyond the bounds of an index."""
    why: str = ""
    """Where it failed."""


class ContextStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Code of other files, as ``GET /v1/status`` tells of it."""

    tokens: int
    """Most that a completion is shown, by the setting or in a workspace that is indexed; 0: none."""
    pid: int | None = None
    """Of the process that has the indexes; null: none runs."""
    memory_bytes: int = 0
    """Of that process."""
    restarts: int = 0
    workspaces: list[WorkspaceStatus] = []


LLAMACPP, TORCH = "llamacpp", "torch"
"""Ids of the engines, as the setting ``engine`` and the manifests of adapters name them."""
UPSTREAM = "upstream"


class EngineState(StrEnum):
    """Life of the engine behind the daemon."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    """The child died; a new one comes up after a back-off."""
    FAILED = "failed"
    """It died too often in a row; ``last_error`` says how, ``fix`` what to do."""
    STOPPED = "stopped"
    UNLOADED = "unloaded"
    """Nothing was asked of it for a while; the next request loads the model."""


class UpstreamStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The server that the user's code is sent to."""

    url: str
    kind: str
    version: str = ""
    model: str = ""
    """The server's name for it."""
    answers: bool = False
    """False while the local model answers instead."""
    answered: int = 0
    """Generations that the server wrote ..."""
    answered_locally: int = 0
    """... and those that the local model wrote."""


class EngineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine is doing."""

    kind: str
    state: EngineState
    model: str
    pid: int | None = None
    restarts: int = 0
    memory_bytes: int = 0
    context_tokens: int = 0
    adapters: list[str] = []
    """Digests loaded now."""
    last_error: str = ""
    """What happened and why; ``fix`` says what to do."""
    fix: str = ""
    responding: bool = True
    """False while its process lives and answers nothing; it is ended and replaced if that goes on."""
    upstream: UpstreamStatus | None = None
    """Null: the model runs on this machine."""
    program: str = ""
    """The ``llama-server`` that runs; empty: the package's own llama.cpp, or another engine."""
    withheld: list[str] = []
    """What the kernel keeps from its process: `files` (all but those that it needs), `network`."""
    program_problem: str = ""
    """What keeps the program that was measured to be the fastest from running; empty: nothing does."""


class ServingSpeed(msgspec.Struct, frozen=True):
    """How fast the engine was seen to be lately, in tokens per second; 0 where that is not known yet."""

    reading: float
    writing: float


class ServingLimit(msgspec.Struct, frozen=True):
    """A limit of requests that follows from how fast the engine is."""

    name: str
    value: int
    """In the unit that its name ends with; 1 or 0 for yes or no."""
    why: str


class LearningChoice(StrEnum):
    """Whether a repository may be learned in the background, as its user said."""

    UNASKED = "unasked"
    LATER = "later"
    """The user was asked and said "not now"."""
    ON = "on"
    OFF = "off"


class LearningActivity(StrEnum):
    """What the daemon does for a repository now."""

    OFF = "off"
    """It may not learn it."""
    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    """The run's process is stopped."""


class GateGain(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate measured of an adapter: shares of held-out places that were filled exactly right."""

    exact: float
    exact_before: float
    places: int
    low: float
    """The difference lies between ``low`` and ``high``, at 95 %. Places are taken for independent of each other."""
    high: float


class Acceptance(msgspec.Struct, frozen=True):
    """How many suggestions were accepted of those that the user decided about."""

    accepted: int
    decided: int


class ServingAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """The adapter that fills in below a repository."""

    name: str
    """Empty: the model without an adapter."""
    digest: str = ""
    since: float = 0.0
    """Since when its name means this version, in seconds since 1970; 0: not known."""
    learned: bool = False
    """Whether it was learned in the background, so that it can be rolled back."""
    gain: GateGain | None = None
    """Null: no gate has measured it."""
    acceptance: Acceptance = Acceptance(0, 0)
    """Its suggestions in this repository, as far as they are remembered."""
    acceptance_before: Acceptance | None = None
    """The same of what served before; null: what that was is not known."""


class RepositoryLearning(msgspec.Struct, frozen=True, kw_only=True):
    """Learning in the background, for one repository."""

    root: str
    """The top of its work tree."""
    choice: LearningChoice
    activity: LearningActivity
    line: str
    """What it does or waits for, in words."""
    last: str = ""
    """How the last run ended, in words."""
    last_at: float = 0.0
    """When, in seconds since 1970; 0: there was none."""
    adapter: str = ""
    """Name of its adapter; empty before the first run."""
    in_use: bool = False
    """Whether a version that was learned in the background is in use."""
    serving: ServingAdapter | None = None
    """What fills in there now; null: it cannot be said."""
    learned: str = ""
    """The newest commit when the last run began that came to its end."""
    step: int = 0
    steps: int = 0
    """0: not known yet."""
    pid: int | None = None
    """Of the run's process."""
    asked: bool = False
    """The user wants it now, and the run has not ended yet."""
    ask: bool = False
    """Whether the user should be asked now: the setting is `ask`, and there is enough code."""


class LearningStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``GET /v1/learning``."""

    setting: str
    line: str
    """What an editor shows, in one line; empty: nothing."""
    minutes_today: float
    minutes_a_day: int
    paused: str = ""
    """How long the user paused it, in words; empty: it is not paused."""
    missing: list[str] = []
    """Packages of tuning that are not installed; nothing is learned then."""
    repositories: list[RepositoryLearning] = []
    """Those that were learned, or for which the user made a choice."""
    here: RepositoryLearning | None = None
    """The repository of the folder that was asked about; null where it is in none."""


class RecentError(msgspec.Struct, frozen=True, kw_only=True):
    """A warning or an error in the daemon's log."""

    at: float
    """When it was last written, in seconds since 1970."""
    line: str
    """What happened, why, and what to do, as far as that is known."""
    times: int = 1
    request: str = ""
    """Id of the request that it belongs to, as its answer's header `X-Request-Id` has it; empty: to none."""


class DaemonStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``GET /v1/status``."""

    version: str
    protocol: int
    pid: int
    uptime_s: float
    address: str
    config_digest: str
    model: str
    engine: EngineStatus
    active_requests: int = 0
    queued_requests: int = 0
    completed_requests: int = 0
    memory_bytes: int = 0
    """Resident memory of the daemon and its engine together; that of the indexes is told with ``context``."""
    memory_counted_bytes: int = 0
    """What counts for the limit: of the daemon and all its children, shared pages once, at the last look."""
    memory_limit_bytes: int = 0
    """The most that may be used (`memory_limit_mb`); what does not fit is not loaded."""
    context: ContextStatus = ContextStatus(tokens=0)
    speed: ServingSpeed | None = None
    limits: list[ServingLimit] = []
    left_out: list[str] = []
    """Adapters in use that answer nothing because their files are damaged or gone, and what to do."""
    intent_engine: EngineStatus | None = None
    """That of the model that answers sentences, where it is another one (`intent_model`); unloaded while unused."""
    edit_engine: EngineStatus | None = None
    """That of the model that suggests next edits, where it is a third one (`edit_model`); unloaded while unused."""
    warnings: list[str] = []
    """What makes completions slow or bad, and what to do."""
    tuning: str = ""
    """Name of the adapter that is being tuned on this machine; completions are slower meanwhile."""
    learning: str = ""
    """What learning in the background does or did last, in one line; empty: nothing."""
    decisions: dict[str, int] = {}
    """How often each part decided what became of a request (docs/why.md)."""
    recent_errors: list[RecentError] = []
    """The last warnings and errors of the log, the newest first."""
    log_file: str = ""
    """Where a daemon in the background writes its log."""
