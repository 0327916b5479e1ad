"""Where files live on this system. Creates nothing.

Folders come from platformdirs; ``PEFT_DAEMON_HOME`` moves them all (tests and portable installs use it).
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from platformdirs import PlatformDirs

APP = "peft-daemon"
SESSIONS = Path("/run/user")
"""Where Linux has a folder for each user who has a session."""
MAX_PATH_CHARS = 4096
"""Longest path of a file that requests and editors may name; Linux's own limit."""


@dataclass(frozen=True)
class Paths:
    """The five folders of an installation; see the properties for what lies in each."""

    config: Path
    data: Path
    cache: Path
    state: Path
    runtime: Path

    @property
    def config_file(self) -> Path:
        """The user's settings, TOML."""
        return self.config / "config.toml"

    @property
    def models(self) -> Path:
        """Verified base models, one folder per catalogue id (can be fetched again: a cache)."""
        return self.cache / "models"

    @property
    def user_catalogue(self) -> Path:
        """The base models that the user added, JSON."""
        return self.data / "models.json"

    @property
    def kv_states(self) -> Path:
        """What the engine has read of documents, saved (can be read again: a cache)."""
        return self.cache / "kv"

    @property
    def intent_kv_states(self) -> Path:
        """The same of the engine of a model that answers sentences only."""
        return self.cache / "kv-intent"

    @property
    def edit_kv_states(self) -> Path:
        """The same of the engine of a model that suggests next edits only."""
        return self.cache / "kv-edit"

    @property
    def adapters(self) -> Path:
        """Adapters by content digest, and the names that point at them (cannot be fetched again: data)."""
        return self.data / "adapters"

    @property
    def builds(self) -> Path:
        """Programs of llama.cpp that were compiled here, one folder per build (minutes of work: data)."""
        return self.data / "engines"

    @property
    def build_cache(self) -> Path:
        """Sources and objects of a build that is not finished (can be made again: a cache)."""
        return self.cache / "engine-build"

    @property
    def program_speeds(self) -> Path:
        """How fast llama.cpp's programs were measured to be, JSON."""
        return self.state / "engine-programs.json"

    @property
    def feedback_file(self) -> Path:
        """What became of suggestions; in a folder of its own, which SQLite shares with its other files."""
        return self.data / "feedback" / "feedback.db"

    @property
    def known_speeds(self) -> Path:
        """How fast engines were seen to be with their models, JSON (can be measured again: state)."""
        return self.state / "speeds.json"

    @property
    def log_file(self) -> Path:
        """Log of the background daemon."""
        return self.state / "daemon.log"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Paths:
        """The folders for this user, or below ``PEFT_DAEMON_HOME`` when that is set."""
        env = os.environ if environ is None else environ
        if home := env.get("PEFT_DAEMON_HOME"):
            root = Path(home).expanduser().absolute()
            return cls(*(root / part for part in ("config", "data", "cache", "state", "run")))
        from platformdirs import PlatformDirs  # noqa: PLC0415  (not needed when the home is given)

        dirs = PlatformDirs(APP, appauthor=False)
        return cls(
            config=Path(dirs.user_config_dir),
            data=Path(dirs.user_data_dir),
            cache=Path(dirs.user_cache_dir),
            state=Path(dirs.user_state_dir),
            runtime=_runtime(env, Path(dirs.user_state_dir) / "run", dirs),
        )


def _runtime(env: Mapping[str, str], sessionless: Path, dirs: PlatformDirs) -> Path:
    """The session's own folder, where there is one; a container has none.

    Cron, ssh and su may not name it, and there must not be a second daemon beside that of the desktop.
    """
    if not sys.platform.startswith("linux"):
        return Path(dirs.user_runtime_dir)
    # For any other folder than a private one platformdirs warns at each start and takes a guessable one below /tmp.
    session = env.get("XDG_RUNTIME_DIR", "")
    known = str(SESSIONS / str(os.getuid()))
    folder = next((Path(each) / APP for each in (session, known) if _is_private(each)), None)
    return folder or sessionless


def _is_private(folder: str) -> bool:
    """Whether this names a folder of this user, not by a link, that nobody else may enter."""
    try:
        info = os.lstat(folder)
    except (OSError, ValueError):
        return False
    ours = info.st_uid == os.getuid() and not info.st_mode & 0o077
    return Path(folder).is_absolute() and stat.S_ISDIR(info.st_mode) and ours
