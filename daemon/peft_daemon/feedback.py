"""Feedback on suggestions: the private SQLite file that holds it on this machine, and its summary.

The file is bounded; the oldest rows are deleted first. Numbers are stored for every suggestion. Text is stored only if
the user has agreed to it, and never if the file or the suggestion contains secrets (``filter_text``). Every call opens
the file, so that the daemon and the command line can use it at the same time. Calls block: use a thread. Nothing is
sent anywhere.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from peft_core.api_types import BASE, FeedbackRequest, Outcome
from peft_core.errors import Conflict, Unavailable
from peft_core.files import private_folder
from peft_core.privacy.files import secret_file
from peft_core.privacy.values import masked_parts, secret_values

SCHEMA = 2
"""Version of the tables. Version 1 kept text without asking the user."""
MAX_ROWS = 20_000
MAX_BYTES = 64_000_000
"""Size of the file. Both bounds apply."""
BUSY_S = 5.0
MAX_PARENT_FOLDERS = 64
"""How many folders above a document are searched for its repository."""

_CREATE = """
CREATE TABLE feedback (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    offer TEXT NOT NULL UNIQUE,
    time REAL NOT NULL,
    repository TEXT,
    record BLOB NOT NULL,
    text TEXT NOT NULL DEFAULT 'none'
)
"""
NO_TEXT, AGREED, UNASKED = "none", "agreed", "unasked"
"""Values of the column ``text``. Text that the user was not asked about (``UNASKED``) is never used."""


@dataclass(frozen=True)
class FeedbackRow:
    """One suggestion, with time and repository."""

    id: int
    time: float
    """When it was recorded, in seconds since 1970."""
    repository: str | None
    """The nearest folder above the document that has a ``.git``, if any; stored only together with text."""
    record: FeedbackRequest
    has_text: bool = False
    """Whether the user agreed to keep the record's text; otherwise the text must not be used."""


@dataclass(frozen=True)
class FeedbackCounts:
    """How many suggestions are recorded."""

    all: int
    with_text: int
    """Suggestions with text that the user agreed to keep."""
    unasked: int
    """Suggestions with text that the user was not asked about."""


class FeedbackStore:
    """The feedback of one installation; the first record creates the file."""

    def __init__(
        self, file: Path, *, keeps_text: bool = False, max_rows: int = MAX_ROWS, max_bytes: int = MAX_BYTES
    ) -> None:
        """``keeps_text``: the user has agreed to keep text of all records, also of those that do not say so."""
        self._file, self._keeps_text, self._max_rows, self._max_bytes = file, keeps_text, max_rows, max_bytes

    @property
    def file(self) -> Path:
        """Path of the SQLite file."""
        return self._file

    def add(self, record: FeedbackRequest) -> bool:
        """Store the parts of a record that may be kept; returns False if this offer is stored already.

        Raises Unavailable if it cannot be written now, Conflict if the file cannot be used.
        """
        kept = filter_text(record) if self._keeps_text or record.text_agreed else None
        text = NO_TEXT if kept is None else AGREED
        repository = find_repository(record.path) if kept else None
        with self._open() as database:
            added = database.execute(
                "INSERT OR IGNORE INTO feedback (offer, time, repository, record, text) VALUES (?, ?, ?, ?, ?)",
                (record.offer, time.time(), repository, msgspec.json.encode(kept or record.counts()), text),
            ).rowcount
            self._keep_small(database)
        return added == 1

    def rows(self) -> Iterator[FeedbackRow]:
        """Yield all rows, oldest first, without unreadable ones; raises as ``add`` does."""
        if not self._file.exists():
            return
        with self._open() as database:
            for id_, when, repository, record, text in database.execute(
                "SELECT id, time, repository, record, text FROM feedback ORDER BY id"
            ):
                if (decoded := _decode(record)) is not None:
                    yield FeedbackRow(id_, when, repository, decoded, text == AGREED)

    def count(self) -> int:
        """Return how many suggestions are recorded; raises as ``add`` does."""
        return self.counts().all

    def counts(self) -> FeedbackCounts:
        """Return how many suggestions are recorded, and how many have text; raises as ``add`` does."""
        if not self._file.exists():
            return FeedbackCounts(0, 0, 0)
        with self._open() as database:
            found = dict(database.execute("SELECT text, count(*) FROM feedback GROUP BY text"))
        return FeedbackCounts(sum(found.values()), found.get(AGREED, 0), found.get(UNASKED, 0))

    def clear(self) -> None:
        """Delete all feedback, also its bytes on the disk, and also a file that cannot be read."""
        if not self._file.exists():
            return
        try:
            with self._open() as database:
                database.execute("DELETE FROM feedback")
                database.commit()
                _wipe_deleted(database)
        except Conflict:
            for name in (self._file.name, f"{self._file.name}-wal", f"{self._file.name}-shm"):
                self._file.with_name(name).unlink(missing_ok=True)

    def clear_text(self) -> None:
        """Delete all text and repositories, also their bytes on the disk; the numbers stay. Raises as ``add``."""
        if not self._file.exists():
            return
        with self._open() as database:
            for id_, record in database.execute(
                "SELECT id, record FROM feedback WHERE text != ?", (NO_TEXT,)
            ).fetchall():
                _remove_text(database, id_, _decode(record))
            database.commit()
            _wipe_deleted(database)

    def _keep_small(self, database: sqlite3.Connection) -> None:
        def pragma(name: str) -> int:
            return int(database.execute(f"PRAGMA {name}").fetchone()[0])

        surplus = int(database.execute("SELECT count(*) FROM feedback").fetchone()[0]) - self._max_rows
        while surplus > 0 or (pragma("page_count") - pragma("freelist_count")) * pragma("page_size") > self._max_bytes:
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
                _use_write_ahead_log(database)
                database.execute("PRAGMA secure_delete = ON")
                self._prepare(database)
                with database:
                    yield database
        except sqlite3.OperationalError as error:
            raise Unavailable(
                "feedback cannot be read or recorded now", why=str(error), fix="Is the disk full? Try again later"
            ) from None
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # SQLite's message may quote the damaged file
            raise Conflict(
                f"{self._file} cannot be read", why=str(error), fix="`peft-daemon feedback clear` removes it"
            ) from None
        except OSError as error:
            raise Unavailable(
                f"{self._file} cannot be opened", why=error.strerror or str(error), fix="Check the data folder"
            ) from None

    def _prepare(self, database: sqlite3.Connection) -> None:
        version = _read_schema(database)
        if version > SCHEMA:
            raise Conflict(
                f"{self._file} was made by a newer peft-daemon",
                why=f"its schema is {version}, this version knows {SCHEMA}",
                fix="Install that version, or remove the feedback with `peft-daemon feedback clear`",
            )
        if version == SCHEMA:
            return
        database.execute("BEGIN IMMEDIATE")
        # Another process may have been quicker.
        version = _read_schema(database)
        if version == 0:
            database.execute(_CREATE)
        elif version == 1:
            _migrate_to_2(database)
        database.execute(f"PRAGMA user_version = {SCHEMA}")
        database.commit()
        if version == 1:
            _wipe_deleted(database)


def filter_text(record: FeedbackRequest) -> FeedbackRequest | None:
    """Return the record as it may be stored with its text, with values that look like secrets masked.

    Returns None if no text may be kept: if the file is of a kind that holds secrets, or if the suggestion, or the text
    that is in its place now, contains a value that looks like a secret or a part of one.
    """
    if secret_file(record.path, record.language) is not None:
        return None
    begun = record.prefix[record.prefix.rfind("\n") + 1 :]
    rest = record.suffix[record.replaced :].partition("\n")[0]
    for text in (record.suggestion, record.now or ""):
        if any(end > len(begun) and start < len(begun + text) for start, end in secret_values(begun + text + rest)):
            return None
    over, behind = record.suffix[: record.replaced], record.suffix[record.replaced :]
    prefix, over, behind = masked_parts(record.prefix, over, behind)
    return msgspec.structs.replace(record, prefix=prefix, suffix=over + behind, replaced=len(over), text_agreed=True)


def _migrate_to_2(database: sqlite3.Connection) -> None:
    """Migrate from schema 1: mark text as not agreed to, and delete it at once if it has secrets."""
    database.execute("ALTER TABLE feedback ADD COLUMN text TEXT NOT NULL DEFAULT 'none'")
    for (id_,) in database.execute("SELECT id FROM feedback").fetchall():
        (record,) = database.execute("SELECT record FROM feedback WHERE id = ?", (id_,)).fetchone()
        decoded = _decode(record)
        kept = filter_text(decoded) if decoded is not None else None
        if kept is None or (kept.prefix, kept.suffix) != (decoded and decoded.prefix, decoded and decoded.suffix):
            _remove_text(database, id_, decoded)
        else:
            database.execute("UPDATE feedback SET text = ? WHERE id = ?", (UNASKED, id_))


def _remove_text(database: sqlite3.Connection, id_: int, record: FeedbackRequest | None) -> None:
    """Keep only the numbers of a row; delete a row that cannot be read."""
    if record is None:
        database.execute("DELETE FROM feedback WHERE id = ?", (id_,))
        return
    database.execute(
        "UPDATE feedback SET record = ?, repository = NULL, text = ? WHERE id = ?",
        (msgspec.json.encode(record.counts()), NO_TEXT, id_),
    )


def _wipe_deleted(database: sqlite3.Connection) -> None:
    """Remove the bytes of deleted rows from the disk."""
    database.execute("VACUUM")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _decode(record: bytes) -> FeedbackRequest | None:
    """Decode the record of a row; None if it cannot be read, so that the other rows still can be."""
    try:
        return msgspec.json.decode(record, type=FeedbackRequest)
    except (ValueError, TypeError, RecursionError):
        return None


def _read_schema(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _use_write_ahead_log(database: sqlite3.Connection) -> None:
    """Give a new file a write-ahead log, so that readers and a writer do not wait for each other."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # SQLite ignores its timeout here, as two processes could wait for each other.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def find_repository(path: str | None) -> str | None:
    """Return the nearest folder above a document that has a ``.git``, if any."""
    if path is None:
        return None
    for folder in list(Path(path).parents)[:MAX_PARENT_FOLDERS]:
        try:
            if (folder / ".git").exists():
                return str(folder)
        except (OSError, ValueError):  # a folder that may not be looked into, or a path that cannot be one
            return None
    return None


class FeedbackSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The suggestions of one adapter in one language: counts, and shares from 0 to 1."""

    adapter: str
    """The adapter's name; ``base`` for none."""
    digest: str
    language: str
    offers: int
    accepted: float
    partly: float
    typed: float
    rejected: float
    still_there: float | None
    """Share of the accepted characters that were still there when checked later; None if none was checked."""
    characters_shown: int
    characters_accepted: int
    characters_kept: int
    """Those of the accepted ones that were still there when checked later; all of them where nobody checked."""


@dataclass
class _Sums:
    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    shown: int = 0
    accepted: int = 0
    accepted_kept: float = 0.0
    stood: int = 0
    kept: int = 0

    def add(self, row: FeedbackRow) -> None:
        record = row.record
        self.outcomes[record.outcome] += 1
        self.shown += record.shown
        self.accepted += record.accepted
        checked = record.kept is not None and record.stood > 0
        self.accepted_kept += record.accepted * (min(1.0, (record.kept or 0) / record.stood) if checked else 1.0)
        if record.outcome in (Outcome.ACCEPTED, Outcome.PARTLY) and record.kept is not None:
            self.stood += record.stood
            self.kept += min(record.kept, record.stood)


def summarize(rows: Iterable[FeedbackRow]) -> list[FeedbackSummary]:
    """Summarize feedback on completions by adapter and language, the most used first; next edits are no part of it."""
    found: dict[tuple[str, str, str], _Sums] = {}
    for row in rows:
        if row.record.next_edit:
            continue
        adapter = row.record.adapter
        key = (adapter.name if adapter else BASE, adapter.digest if adapter else "", row.record.language)
        found.setdefault(key, _Sums()).add(row)
    lines = [_summarize_group(*key, sums) for key, sums in found.items()]
    return sorted(lines, key=lambda line: (-line.offers, line.adapter, line.language))


def kept_per_100_shown(lines: Iterable[FeedbackSummary]) -> float | None:
    """Return the characters accepted and still there later, of 100 that were shown; None if none was shown."""
    pairs = [(line.characters_kept, line.characters_shown) for line in lines]
    shown = sum(each for _, each in pairs)
    return round(100 * sum(each for each, _ in pairs) / shown, 1) if shown else None


def _summarize_group(adapter: str, digest: str, language: str, sums: _Sums) -> FeedbackSummary:
    offers = sum(sums.outcomes.values())
    return FeedbackSummary(
        adapter=adapter,
        digest=digest,
        language=language,
        offers=offers,
        **{outcome.value: count / offers for outcome, count in sums.outcomes.items()},
        still_there=sums.kept / sums.stood if sums.stood else None,
        characters_shown=sums.shown,
        characters_accepted=sums.accepted,
        characters_kept=round(sums.accepted_kept),
    )
