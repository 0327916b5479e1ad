"""Feedback is kept once, privately and within bounds, and can be removed without a trace."""

from __future__ import annotations

import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from peft_daemon.errors import Conflict, Unavailable
from peft_daemon.feedback.store import FeedbackStore, repository_of
from peft_daemon.protocol import FeedbackRequest, Outcome


def told(offer: str, text: str = "x = 1", **fields: object) -> FeedbackRequest:
    values: dict[str, object] = {"outcome": Outcome.ACCEPTED, "language": "python", "model": "m", **fields}
    return FeedbackRequest(offer=offer, suggestion=text, shown=len(text), **values)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> FeedbackStore:
    return FeedbackStore(tmp_path / "feedback" / "feedback.db")


def test_without_a_record_there_is_no_file(store: FeedbackStore) -> None:
    assert (list(store.rows()), store.count()) == ([], 0)
    store.clear()
    assert not store.file.exists()


def test_a_record_comes_back_as_it_was_and_counts_once(store: FeedbackStore) -> None:
    record = told("1", "é😀\n", path="/a/b.py", prefix="p", suffix=")", replaced=1, accepted=3, kept=2, now="é\n")
    assert store.add(record)
    assert not store.add(told("1"))
    assert [row.record for row in store.rows()] == [record]


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
    store = FeedbackStore(tmp_path / "f" / "f.db", most_rows=3)
    for number in range(5):
        store.add(told(str(number)))
    assert [row.record.offer for row in store.rows()] == ["2", "3", "4"]


def test_the_oldest_leave_when_the_file_grows_too_large(tmp_path: Path) -> None:
    most = 200_000
    store = FeedbackStore(tmp_path / "f" / "f.db", most_bytes=most)
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
    assert not any(b"pa55word_of_mine" in file.read_bytes() for file in store.file.parent.iterdir())
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
    assert repository_of(str(inner / "c.py")) == str(tmp_path / "a")
    assert repository_of(None) is None
    assert repository_of("/no\0path") is None
    assert repository_of("/nowhere/at/all.py") is None
