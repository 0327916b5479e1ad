"""What is remembered of each repository that may be learned in the background, and of today's minutes.

Each repository has a small private file, named after a hash of its path; nothing of its code is in it. Files are read
anew each time, so the daemon and the command line may both use them; a change holds a lock. A damaged file is moved
aside and told, and the repository counts as one that nobody was asked about: nothing is learned without a yes.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import msgspec

from peft_core.code.work_trees import main_folder
from peft_core.errors import Unavailable, UnusablePath
from peft_core.files import private_folder, write_private
from peft_core.paths import Paths
from peft_core.status_types import LearningChoice

log = logging.getLogger("peft_daemon.learning")

LOCK_TIMEOUT_S = 5.0
CLOCK_SLACK_S = 60.0
"""A clock that is set back by less is only being corrected."""
MAX_OUTCOMES = 1_000
"""Outcomes of suggestions that are kept of one adapter, the newest."""
MAX_ADAPTERS = 4
"""Adapters of a repository whose outcomes are kept."""

StoredT = TypeVar("StoredT")


class PendingRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that was begun and has not ended yet; it is resumed from its checkpoint."""

    head: str
    """The newest commit when it was begun."""
    budget_s: float
    began: float
    """Seconds since 1970."""
    before: str = ""
    """Digest of what served when it was begun; empty: the base."""
    setting_before: str | None = None
    """The repository's own setting then; see ``LearnedVersion``."""
    context_before: int = 0


class LearnedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter that was learned in the background and serves now, and what served before it."""

    digest: str
    since: float
    """Seconds since 1970."""
    before: str = ""
    """Digest of what served before; empty: the base."""
    setting_before: str | None = None
    """The repository's own setting before: a name, a digest or ``base``; null: it had none."""
    context_before: int = 0
    """Tokens of other files' code that prompts there showed before, as an earlier gate found."""


class RepositoryState(msgspec.Struct, frozen=True, kw_only=True):
    """All that is remembered of one repository."""

    root: str
    """The folder that stands for it in all its work trees, without links in the path."""
    tree: str = ""
    """The top of the work tree that is learned, the one that was used last; empty: ``root``."""
    choice: LearningChoice = LearningChoice.UNASKED
    asked_at: float = 0.0
    adapter: str = ""
    """Name of its adapter; empty before the first run."""
    base_sha256: str = ""
    """The base that it was learned for."""
    learned: str = ""
    """The newest commit when the last run that came to an end was begun."""
    unlearned: int = 0
    """Documents that the last run had no time for; 0 where its adapter is not in use."""
    pending: PendingRun | None = None
    serving: LearnedVersion | None = None
    unused: tuple[str, ...] = ()
    """Digests of versions that were refused or taken back; the next run's clean-up removes them."""
    outcomes: dict[str, str] = {}
    """By digest (empty: the base), what became of suggestions, oldest first: ``1`` accepted, ``0`` rejected."""
    failures: int = 0
    """Runs in a row that failed."""
    retry_at: float = 0.0
    """When a failed run may be tried again, seconds since 1970."""
    last: str = ""
    """How the last run ended, in words."""
    last_at: float = 0.0
    peak_bytes: int = 0
    """Most memory that a run took."""

    @property
    def work_tree(self) -> Path:
        """The top of the work tree that is learned."""
        return Path(self.tree) if self.tree and Path(self.tree).is_dir() else Path(self.root)

    def in_tree(self, tree: Path) -> RepositoryState:
        """Return the state with another work tree to learn; a run that has begun goes on in its own."""
        name = "" if str(tree) == self.root else str(tree)
        return self if self.pending else msgspec.structs.replace(self, tree=name)

    def with_outcome(self, digest: str, *, accepted: bool) -> RepositoryState:
        """Return the state with one more settled suggestion of an adapter.

        What is being compared is not changed once it is full: a window that moves on would be a new test each time.
        """
        compared = {self.serving.digest, self.serving.before} if self.serving else set()
        outcomes = self.outcomes.get(digest, "")
        if digest in compared and len(outcomes) >= MAX_OUTCOMES:
            return self
        others = {key: value for key, value in self.outcomes.items() if key != digest}
        for spare in [key for key in others if key not in compared][: max(0, len(others) - MAX_ADAPTERS + 1)]:
            del others[spare]
        mine = (outcomes + ("1" if accepted else "0"))[-MAX_OUTCOMES:]
        return msgspec.structs.replace(self, outcomes={**others, digest: mine})


class UsedMinutes(msgspec.Struct, frozen=True):
    """How long was learned on one day."""

    day: str
    minutes: float


class Pause(msgspec.Struct, frozen=True):
    """The user wants nothing to be learned for a while."""

    until: float | None = None
    """Seconds since 1970; null: until it is resumed."""
    since: float | None = None
    """When it began; null in files of earlier versions."""

    def is_over(self, now: float) -> bool:
        """Whether it has passed, also because the clock was set back to before it began."""
        if self.until is None:
            return False
        return now >= self.until or (self.since is not None and now < self.since - CLOCK_SLACK_S)

    @property
    def words(self) -> str:
        """How long, in words."""
        if self.until is None:
            return "until `peft-daemon learn resume`"
        return f"until {time.strftime('%a %H:%M', time.localtime(self.until))}"


class LearningStore:
    """The files of one installation; the first change creates them."""

    def __init__(self, paths: Paths, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = learning_folder(paths), clock

    def get(self, root: str) -> RepositoryState:
        """Return what is remembered of a repository."""
        found = self._read(self._file(root), RepositoryState)
        if found is not None and found.root == root:
            return found
        return next((state for state in self.all() if state.root == root), RepositoryState(root=root))

    def all(self) -> list[RepositoryState]:
        """Return the states of all repositories, by path.

        What an earlier version remembers of a further work tree counts for its repository, if that has nothing itself.
        """
        files = sorted(self._folder.glob("repository-*.json")) if self._folder.is_dir() else []
        found = [state for file in files if (state := self._read(file, RepositoryState)) is not None]
        states = {state.root: state for state in found}
        for state in found:
            if (main := str(main_folder(Path(state.root)))) != state.root:
                del states[state.root]
                states.setdefault(main, msgspec.structs.replace(state, root=main, tree=state.root))
        return sorted(states.values(), key=lambda state: state.root)

    def change(self, root: str, changed: Callable[[RepositoryState], RepositoryState]) -> RepositoryState:
        """Replace what is remembered of a repository by what ``changed`` makes of it, and return that.

        Raises Unavailable when another process holds the files for long, UnusablePath where they cannot be written.
        """
        with self._lock():
            before = self.get(root)
            after = changed(before)
            if after != before:
                write_private(self._file(root), msgspec.json.encode(after))
        return after

    def minutes_today(self) -> float:
        """Return how many minutes were learned today."""
        used = self._read(self._minutes_file, UsedMinutes)
        return used.minutes if used is not None and used.day == self._today() else 0.0

    def add_minutes(self, minutes: float) -> None:
        """Count minutes of today; raises as ``change`` does."""
        with self._lock():
            used = UsedMinutes(self._today(), self.minutes_today() + minutes)
            write_private(self._minutes_file, msgspec.json.encode(used))

    def pause(self) -> Pause | None:
        """Return the pause that the user wants; None if there is none, or it is over."""
        found = self._read(self._pause_file, Pause)
        return None if found is None or found.is_over(self._clock()) else found

    def set_pause(self, pause: Pause | None) -> None:
        """Begin a pause, or end it; raises as ``change`` does."""
        with self._lock():
            if pause is None:
                self._pause_file.unlink(missing_ok=True)
            else:
                write_private(self._pause_file, msgspec.json.encode(pause))

    @property
    def _pause_file(self) -> Path:
        return self._folder / "pause.json"

    @property
    def _minutes_file(self) -> Path:
        return self._folder / "minutes.json"

    def _file(self, root: str) -> Path:
        return self._folder / f"repository-{blake2b(root.encode(), digest_size=8).hexdigest()}.json"

    def _today(self) -> str:
        return time.strftime("%Y-%m-%d", time.localtime(self._clock()))

    def _read(self, file: Path, kind: type[StoredT]) -> StoredT | None:
        try:
            return msgspec.json.decode(file.read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("%s cannot be read: %s", file, error.strerror or error)
            return None
        except (ValueError, RecursionError) as error:
            aside = file.with_suffix(".damaged")
            log.warning("%s is damaged (%s); it is set aside as %s", file, error, aside.name)
            with contextlib.suppress(OSError):
                file.replace(aside)
            return None

    @contextmanager
    def _lock(self) -> Iterator[None]:
        from filelock import FileLock, Timeout  # noqa: PLC0415  (most daemons learn nothing)

        try:
            private_folder(self._folder)
            held = FileLock(self._folder / ".lock", timeout=LOCK_TIMEOUT_S, mode=0o600, poll_interval=0.01).acquire()
        except Timeout:
            raise Unavailable(
                "another process is changing what is remembered of learning", fix="Try again in a moment"
            ) from None
        except OSError as error:
            raise UnusablePath(error, self._folder) from None
        with held:
            yield


def learning_folder(paths: Paths) -> Path:
    """Return the folder of all files that learning in the background keeps."""
    return paths.data / "learning"
