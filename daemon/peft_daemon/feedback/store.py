"""The file that feedback is kept in: SQLite, private to its owner, bounded, its oldest rows leaving first.

Every call opens the file anew, so that the daemon and the command line can use it at the same time; calls block, and
belong into a thread. Does not judge what is recorded.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from peft_daemon.errors import Conflict, Unavailable
from peft_daemon.paths import private_folder
from peft_daemon.protocol import FeedbackRequest

SCHEMA = 1
MOST_ROWS = 20_000
MOST_BYTES = 64_000_000
"""Of the file; whichever bound is met first."""
BUSY_S = 5.0
FARTHEST = 64
"""Folders above a document in which its repository is looked for."""

_CREATE = """
CREATE TABLE feedback (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    offer TEXT NOT NULL UNIQUE,
    time REAL NOT NULL,
    repository TEXT,
    record BLOB NOT NULL
)
"""


@dataclass(frozen=True)
class Row:
    """One suggestion, and when and where it was."""

    id: int
    time: float
    """Seconds since 1970 at which it was recorded."""
    repository: str | None
    """The folder at or above the document that has a ``.git``, if there is one."""
    record: FeedbackRequest


class FeedbackStore:
    """The feedback of one installation; the file is made by the first record."""

    def __init__(self, file: Path, *, most_rows: int = MOST_ROWS, most_bytes: int = MOST_BYTES) -> None:
        self._file, self._most_rows, self._most_bytes = file, most_rows, most_bytes

    @property
    def file(self) -> Path:
        """Where it lies."""
        return self._file

    def add(self, record: FeedbackRequest) -> bool:
        """Record it; False if this offer is recorded already.

        Raises Unavailable when the disk does not take it, Conflict when the file cannot be used.
        """
        repository = repository_of(record.path)
        with self._open() as database:
            added = database.execute(
                "INSERT OR IGNORE INTO feedback (offer, time, repository, record) VALUES (?, ?, ?, ?)",
                (record.offer, time.time(), repository, msgspec.json.encode(record)),
            ).rowcount
            self._keep_small(database)
        return added == 1

    def rows(self) -> Iterator[Row]:
        """All of it, oldest first; raises as ``add`` does."""
        if not self._file.exists():
            return
        with self._open() as database:
            for id_, when, repository, record in database.execute(
                "SELECT id, time, repository, record FROM feedback ORDER BY id"
            ):
                yield Row(id_, when, repository, msgspec.json.decode(record, type=FeedbackRequest))

    def count(self) -> int:
        """How many suggestions are recorded."""
        if not self._file.exists():
            return 0
        with self._open() as database:
            return int(database.execute("SELECT count(*) FROM feedback").fetchone()[0])

    def clear(self) -> None:
        """Remove all of it, the bytes on the disk included; also a file that cannot be read any more."""
        if not self._file.exists():
            return
        try:
            with self._open() as database:
                database.execute("DELETE FROM feedback")
                database.commit()
                database.execute("VACUUM")
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except Conflict:
            for name in (self._file.name, f"{self._file.name}-wal", f"{self._file.name}-shm"):
                self._file.with_name(name).unlink(missing_ok=True)

    def _keep_small(self, database: sqlite3.Connection) -> None:
        def pragma(name: str) -> int:
            return int(database.execute(f"PRAGMA {name}").fetchone()[0])

        surplus = int(database.execute("SELECT count(*) FROM feedback").fetchone()[0]) - self._most_rows
        while surplus > 0 or (pragma("page_count") - pragma("freelist_count")) * pragma("page_size") > self._most_bytes:
            removed = database.execute(
                "DELETE FROM feedback WHERE id IN (SELECT id FROM feedback ORDER BY id LIMIT ?)", (max(surplus, 1),)
            ).rowcount
            if not removed:
                return
            surplus = 0

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            private_folder(self._file.parent)
            # SQLite gives its own files the mode of this one.
            os.close(os.open(self._file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600))
            self._file.chmod(0o600)
            with closing(sqlite3.connect(self._file, timeout=BUSY_S)) as database:
                _log_ahead(database)
                database.execute("PRAGMA secure_delete = ON")
                self._prepare(database)
                with database:
                    yield database
        except sqlite3.OperationalError as error:
            raise Unavailable(
                "feedback cannot be read or recorded now", why=str(error), fix="Is the disk full? Try again later"
            ) from None
        except sqlite3.DatabaseError as error:
            raise Conflict(
                f"{self._file} cannot be read", why=str(error), fix="`peft-daemon feedback clear` removes it"
            ) from None
        except OSError as error:
            raise Unavailable(
                f"{self._file} cannot be opened", why=error.strerror or str(error), fix="Check the data folder"
            ) from None

    def _prepare(self, database: sqlite3.Connection) -> None:
        version = int(database.execute("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA:
            raise Conflict(
                f"{self._file} was made by a newer peft-daemon",
                why=f"its schema is {version}, this version knows {SCHEMA}",
                fix="Install that version, or remove the feedback with `peft-daemon feedback clear`",
            )
        if version == 0:
            database.execute("BEGIN IMMEDIATE")
            # Another process may have been quicker.
            if int(database.execute("PRAGMA user_version").fetchone()[0]) == 0:
                database.execute(_CREATE)
                database.execute(f"PRAGMA user_version = {SCHEMA}")
            database.commit()


def _log_ahead(database: sqlite3.Connection) -> None:
    """Let readers and a writer not wait for each other: whoever first opens a new file gives it a write-ahead log."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # SQLite itself does not wait here, though it has been told to: two could wait for each other.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def repository_of(path: str | None) -> str | None:
    """The nearest folder at or above a document that has a ``.git``."""
    if path is None:
        return None
    for folder in list(Path(path).parents)[:FARTHEST]:
        try:
            if (folder / ".git").exists():
                return str(folder)
        except (OSError, ValueError):  # a folder that may not be looked into, or a path that cannot be one
            return None
    return None
