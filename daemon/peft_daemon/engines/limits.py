"""What a request may cost, by how fast the engine is, where the settings leave it open (0).

Each limit is a time: a step of reading takes 0.1 s, because a cancelled request ends with its step; a prompt is read in
0.3 s. On two slow cores these times are too short to be useful. So each limit has a least value, made for them.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from peft_core.errors import PeftDaemonError
from peft_core.files import private_folder, read_private, write_private
from peft_core.settings import Settings
from peft_daemon.engines.base import EngineSpeed

log = logging.getLogger(__name__)

STEP_S, PROMPT_S = 0.1, 0.3
"""Seconds that a step, and a prompt that nobody had read, may take."""
LEAST_STEP_TOKENS, MOST_STEP_TOKENS = 16, 512
LEAST_PROMPT_TOKENS, MOST_PROMPT_TOKENS = 1024, 8192
LEAST_CONTEXT_TOKENS, MOST_CONTEXT_TOKENS = 4096, 131_072
ANSWER_TOKENS = 2048
"""Room for the answer in a context that is made for a long prompt."""
LOOK_AHEAD_TOKENS, LOOK_AHEAD_S = 12, 5.0
"""A line is prepared only if it is written in the time in which somebody reads the one before it."""
GROWTH = 1.25
"""A limit that decides where a prompt begins grows when it is exceeded by so much: each change reads it all again."""
MAX_KNOWN_SPEEDS = 64


def step_tokens(settings: Settings, speed: EngineSpeed) -> int:
    """Return how many prompt tokens an engine reads between two moments at which it can be stopped."""
    fitting = int(speed.reading * STEP_S) // LEAST_STEP_TOKENS * LEAST_STEP_TOKENS
    return settings.batch_tokens or min(max(fitting, LEAST_STEP_TOKENS), MOST_STEP_TOKENS)


def prompt_tokens(settings: Settings, speed: EngineSpeed, before: int = 0) -> int:
    """Return the longest prompt: a power of two, so that it changes seldom.

    ``before`` is the limit until now, which is kept while the speed is near it; 0: there was none.
    """
    if settings.prompt_tokens:
        return settings.prompt_tokens
    read = speed.reading * PROMPT_S
    limit = LEAST_PROMPT_TOKENS
    while 2 * limit <= min(read, MOST_PROMPT_TOKENS):
        limit *= 2
    near = (limit > before and read < GROWTH * limit) or (limit < before and read * GROWTH > before)
    return before if before and near else limit


def context_tokens(settings: Settings, trained: int, speed: EngineSpeed = EngineSpeed()) -> int:
    """Return the size of the context to serve, for a model ``trained`` with so many tokens."""
    limit = max(LEAST_CONTEXT_TOKENS, prompt_tokens(settings, speed) + ANSWER_TOKENS)
    return min(settings.context_tokens or limit, trained)


def looks_ahead(settings: Settings, speed: EngineSpeed) -> bool:
    """Whether the next suggestion is prepared while one is shown: not where it could not be ready in time."""
    return settings.look_ahead and (not speed.writing or speed.writing * LOOK_AHEAD_S >= LOOK_AHEAD_TOKENS)


class KnownSpeeds:
    """How fast engines were with their models when daemons served them, in a file of the state folder."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def get(self, key: str) -> EngineSpeed:
        """Return what is known; zeros if nothing is, or the file cannot be read."""
        return self._read().get(key, EngineSpeed())

    def put(self, key: str, speed: EngineSpeed) -> None:
        """Remember the speed; the oldest ones are forgotten. A file that cannot be written is logged."""
        known = self._read()
        known.pop(key, None)
        kept = list({**known, key: speed}.items())[-MAX_KNOWN_SPEEDS:]
        try:
            private_folder(self._file.parent)
            write_private(self._file, msgspec.json.encode(dict(kept)))
        except (PeftDaemonError, OSError) as error:
            log.warning("the engine's speed could not be kept in %s: %s", self._file, error)

    def _read(self) -> dict[str, EngineSpeed]:
        try:
            return msgspec.json.decode(read_private(self._file) or b"{}", type=dict[str, EngineSpeed])
        except (PeftDaemonError, ValueError, RecursionError):  # it is measured again
            return {}
