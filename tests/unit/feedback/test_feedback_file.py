"""Feedback is kept once, privately and within bounds, its text only by consent, and is removed without a trace."""

from __future__ import annotations

import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from peft_core.api_types import AdapterUse, FeedbackRequest, Outcome
from peft_core.errors import Conflict, Unavailable
from peft_core.privacy.values import MASK
from peft_daemon.feedback import (
    FeedbackCounts,
    FeedbackRow,
    FeedbackStore,
    find_repository,
    kept_per_100_shown,
    summarize,
)


def told(offer: str, text: str = "x = 1", **fields: object) -> FeedbackRequest:
    values: dict[str, object] = {"outcome": Outcome.ACCEPTED, "language": "python", "model": "m", **fields}
    return FeedbackRequest(offer=offer, suggestion=text, shown=len(text), **values)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> FeedbackStore:
    return FeedbackStore(tmp_path / "feedback" / "feedback.db", keeps_text=True)


def on_disk(store: FeedbackStore) -> bytes:
    return b"".join(file.read_bytes() for file in store.file.parent.iterdir())


WITH_TEXT = {
    **{"path": "/home/me/project/app.py", "prefix": "before_it = ", "suffix": ") behind_it", "replaced": 1},
    **{"accepted": 3, "stood": 5, "kept": 2, "now": "now_there"},
}
PIECES = (b"before_it", b"behind_it", b"now_there", b"suggested", b"app.py", b"project")


def test_without_a_record_there_is_no_file(store: FeedbackStore) -> None:
    assert (list(store.rows()), store.count()) == ([], 0)
    store.clear()
    assert not store.file.exists()


def test_a_record_comes_back_as_it_was_and_counts_once(store: FeedbackStore) -> None:
    record = told("1", "é😀\n", path="/a/b.py", prefix="p", suffix=")", replaced=1, accepted=3, kept=2, now="é\n")
    assert store.add(record)
    assert not store.add(told("1"))
    (row,) = store.rows()
    assert row.record == msgspec.structs.replace(record, text_agreed=True)
    assert row.has_text


def test_without_consent_numbers_are_kept_and_no_byte_of_the_text_nor_where_it_was(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path / "f" / "f.db")
    (tmp_path / ".git").mkdir()
    assert store.add(told("1", "suggested", **WITH_TEXT))
    assert store.add(told("2", "suggested", **{**WITH_TEXT, "path": str(tmp_path / "app.py")}))
    for row in store.rows():
        record = row.record
        assert not row.has_text
        assert row.repository is None
        assert (record.outcome, record.language, record.shown) == (Outcome.ACCEPTED, "python", 9)
        assert (record.accepted, record.stood, record.kept) == (3, 5, 2)
    assert store.counts() == FeedbackCounts(all=2, with_text=0, unasked=0)
    assert not [piece for piece in PIECES if piece in on_disk(store)]


def test_a_record_that_the_user_agreed_to_in_the_editor_keeps_its_text(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path / "f" / "f.db")
    store.add(told("1", "suggested", text_agreed=True, **WITH_TEXT))
    store.add(told("2", "suggested", **WITH_TEXT))
    assert [(row.record.suggestion, row.has_text) for row in store.rows()] == [("suggested", True), ("", False)]
    assert store.counts() == FeedbackCounts(all=2, with_text=1, unasked=0)


@pytest.mark.parametrize(
    "fields",
    [
        {"path": "/home/me/project/.env"},
        {"path": "/home/me/.ssh/id_rsa"},
        {"path": None, "language": "dotenv"},
        {"prefix": "password = ", "text": "'hunter2x'"},
        {"prefix": "password = ", "text": "get()", "now": "'hunter2x'"},
        {"prefix": "password = 'hun", "text": "t", "suffix": "er2x'"},
    ],
)
def test_no_text_is_kept_of_secret_files_and_of_suggestions_that_have_a_secret(
    store: FeedbackStore, fields: dict[str, str]
) -> None:
    values = {**WITH_TEXT, "replaced": 0, "text": "suggested", **fields}
    store.add(told("1", **values))
    (row,) = store.rows()
    assert (row.has_text, row.record.shown) == (False, len(values["text"]))
    for piece in (b"hunter2x", b"before_it", b"suggested", b"id_rsa", b".env"):
        assert piece not in on_disk(store)


def test_secrets_around_a_suggestion_are_masked(store: FeedbackStore) -> None:
    around = {"prefix": "password = 'hunter2x'\nx = (", "suffix": ") + 1\npassword = 'hunter3x'\n", "replaced": 1}
    store.add(told("1", "y", **around))
    (row,) = store.rows()
    assert row.record.prefix == f"password = '{MASK}'\nx = ("
    assert row.record.suffix == f") + 1\npassword = '{MASK}'\n"
    assert row.record.replaced == 1
    assert b"hunter" not in on_disk(store)


def old_file(file: Path, *records: FeedbackRequest | bytes) -> None:
    """A file as the first version made it: all text, and no column that tells of consent."""
    file.parent.mkdir(mode=0o700, parents=True)
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(
            "CREATE TABLE feedback (id INTEGER PRIMARY KEY AUTOINCREMENT, offer TEXT NOT NULL UNIQUE,"
            " time REAL NOT NULL, repository TEXT, record BLOB NOT NULL)"
        )
        for number, record in enumerate(records):
            blob = record
            if isinstance(record, FeedbackRequest):
                fields = msgspec.to_builtins(record)
                del fields["text_agreed"]
                blob = msgspec.json.encode(fields)
            database.execute(
                "INSERT INTO feedback (offer, time, repository, record) VALUES (?, 1.5, '/home/me/project', ?)",
                (str(number), blob),
            )
        database.execute("PRAGMA user_version = 1")
        database.commit()


def test_text_from_before_anybody_was_asked_is_set_apart_and_can_be_removed(store: FeedbackStore) -> None:
    old_file(store.file, told("0", "suggested", **WITH_TEXT), told("1", "suggested", **WITH_TEXT))
    store.add(told("new", "suggested", **WITH_TEXT))
    assert store.counts() == FeedbackCounts(all=3, with_text=1, unasked=2)
    assert [row.has_text for row in store.rows()] == [False, False, True]
    assert [row.time for row in store.rows()][:2] == [1.5, 1.5]
    store.clear_text()
    assert store.counts() == FeedbackCounts(all=3, with_text=0, unasked=0)
    assert {row.record.kept for row in store.rows()} == {2}
    assert not [piece for piece in PIECES if piece in on_disk(store)]


def test_secrets_from_before_anybody_was_asked_are_gone_at_once(store: FeedbackStore) -> None:
    secret = told("0", "'hunter2x'", path="/home/me/project/app.py", prefix="password = ")
    of_env = told("1", "4242abcd", path="/home/me/project/.env", prefix="SMTP_PASSWORD=")
    around = told("2", "1", path="/home/me/project/app.py", prefix="password = 'hunter2x'\nx = ")
    old_file(store.file, secret, of_env, around, told("3", "suggested", **WITH_TEXT), b"{broken")
    assert store.counts() == FeedbackCounts(all=4, with_text=0, unasked=1)
    for piece in (b"hunter2x", b"4242abcd", b"SMTP", b".env", b"{broken"):
        assert piece not in on_disk(store)
    assert b"suggested" in on_disk(store)
    assert len(list(store.rows())) == 4


def test_a_row_that_cannot_be_read_hides_no_other(store: FeedbackStore) -> None:
    store.add(told("1"))
    store.add(told("2"))
    with closing(sqlite3.connect(store.file)) as database:
        database.execute("UPDATE feedback SET record = ? WHERE offer = '1'", (b"\xff{",))
        database.commit()
    assert [row.record.offer for row in store.rows()] == ["2"]


def test_all_its_files_are_its_owners_alone(store: FeedbackStore) -> None:
    store.add(told("1"))
    with sqlite3.connect(store.file) as reader:  # holds the files that SQLite keeps beside it
        reader.execute("SELECT * FROM feedback").fetchall()
        store.add(told("2"))
        files = sorted(store.file.parent.iterdir())
        assert [file.name for file in files] == ["feedback.db", "feedback.db-shm", "feedback.db-wal"]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    reader.close()
    assert stat.S_IMODE(store.file.parent.stat().st_mode) == 0o700


def test_a_link_in_its_place_is_not_followed(store: FeedbackStore, tmp_path: Path) -> None:
    store.file.parent.mkdir()
    (tmp_path / "other").touch()
    store.file.symlink_to(tmp_path / "other")
    with pytest.raises(Unavailable, match="cannot be opened"):
        store.add(told("1"))


def test_the_oldest_leave_when_there_are_too_many(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path / "f" / "f.db", max_rows=3)
    for number in range(5):
        store.add(told(str(number)))
    assert [row.record.offer for row in store.rows()] == ["2", "3", "4"]


def test_the_oldest_leave_when_the_file_grows_too_large(tmp_path: Path) -> None:
    most = 200_000
    store = FeedbackStore(tmp_path / "f" / "f.db", keeps_text=True, max_bytes=most)
    for number in range(20):
        store.add(told(str(number), "x" * 30_000))
    left = [row.record.offer for row in store.rows()]
    assert left == [str(number) for number in range(20 - len(left), 20)]
    assert 3 <= len(left) <= 6
    assert store.file.stat().st_size < most + 100_000


def test_cleared_text_is_not_on_the_disk_any_more(store: FeedbackStore) -> None:
    store.add(told("1", "pa55word_of_mine"))
    store.clear()
    assert store.count() == 0
    assert b"pa55word_of_mine" not in on_disk(store)
    assert store.add(told("1")), "and it goes on"


def test_a_file_that_is_no_database_is_told_and_can_be_removed(store: FeedbackStore) -> None:
    store.file.parent.mkdir()
    store.file.write_bytes(b"not a database " * 100)
    with pytest.raises(Conflict, match="feedback clear"):
        store.add(told("1"))
    store.clear()
    assert store.add(told("1"))


def test_a_file_of_a_newer_version_is_left_alone(store: FeedbackStore) -> None:
    store.add(told("1"))
    with sqlite3.connect(store.file) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(Conflict, match="newer"):
        store.add(told("2"))


def test_many_writers_lose_nothing(store: FeedbackStore) -> None:
    def write(who: int) -> None:
        for number in range(5):
            store.add(told(f"{who}/{number}"))

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.count() == 20


def test_the_first_record_waits_for_another_process_that_makes_the_file(store: FeedbackStore) -> None:
    store.file.parent.mkdir()
    other = sqlite3.connect(store.file, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    done = threading.Timer(0.3, other.rollback)
    done.start()
    assert store.add(told("1"))
    done.join()
    other.close()
    assert store.count() == 1


def test_the_repository_of_a_document_is_the_nearest_folder_with_a_git(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "a" / ".git").touch()  # a work tree has a file there
    assert find_repository(str(inner / "c.py")) == str(tmp_path / "a")
    assert find_repository(None) is None
    assert find_repository("/no\0path") is None
    assert find_repository("/nowhere/at/all.py") is None


# Feedback is summed up by adapter and language.

MINE = AdapterUse("mine", "abc", 0.5)


def row(outcome: Outcome, adapter: AdapterUse | None = None, language: str = "python", **numbers: int) -> FeedbackRow:
    about = {"offer": "1", "model": "m", "suggestion": "0123456789", "shown": 10}
    record = FeedbackRequest(outcome=outcome, language=language, adapter=adapter, **about, **numbers)  # type: ignore[arg-type]
    return FeedbackRow(1, 0.0, None, record)


def test_nothing_is_no_line() -> None:
    assert summarize([]) == []


def test_next_edits_are_no_part_of_the_shares_of_completions() -> None:
    assert summarize([row(Outcome.ACCEPTED, next_edit=True)]) == []


def test_each_adapter_and_language_has_its_shares_and_the_most_used_comes_first() -> None:
    rows = [
        row(Outcome.REJECTED, language="go"),
        row(Outcome.ACCEPTED, MINE, accepted=8, stood=10, kept=5),
        row(Outcome.PARTLY, MINE, accepted=4, stood=6, kept=6),
        row(Outcome.TYPED, MINE, stood=10, kept=10),
        row(Outcome.REJECTED, MINE),
    ]
    first, second = summarize(rows)
    assert (first.adapter, first.digest, first.language, first.offers) == ("mine", "abc", "python", 4)
    assert (first.accepted, first.partly, first.typed, first.rejected) == (0.25, 0.25, 0.25, 0.25)
    assert first.still_there == 11 / 16, "what was typed by hand says nothing about it"
    assert (first.characters_accepted, first.characters_shown) == (12, 40)
    assert first.characters_kept == 8, "of the first suggestion half was gone"
    assert kept_per_100_shown([first, second]) == 16.0
    assert kept_per_100_shown([]) is None
    assert (second.adapter, second.language, second.rejected, second.still_there) == ("base", "go", 1.0, None)
