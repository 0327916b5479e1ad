"""What is remembered of a repository: private, changed by several at once, and damaged without harm."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import msgspec
import pytest

from peft_core.errors import UnusablePath
from peft_core.paths import Paths
from peft_core.status_types import LearningChoice
from peft_daemon.learning.log import LearningEvent, LearningLog
from peft_daemon.learning.state import (
    MAX_ADAPTERS,
    MAX_OUTCOMES,
    LearnedVersion,
    LearningStore,
    Pause,
    RepositoryState,
    learning_folder,
)

DAY = 24 * 3600.0
replace = msgspec.structs.replace


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path / "home")})


def test_a_pause_ends_also_when_the_clock_is_set_back_to_before_it_began(paths: Paths) -> None:
    now = [1_700_000_000.0]
    store = LearningStore(paths, lambda: now[0])
    store.set_pause(Pause(now[0] + 3600, now[0]))
    now[0] -= 1.0
    assert store.pause() is not None, "a correction of the clock"
    now[0] -= 365 * DAY
    assert store.pause() is None
    store.set_pause(Pause(None, now[0] + DAY))
    assert store.pause() is not None, "one without an end has none"


def test_a_pause_ends_with_its_time_or_when_it_is_resumed(paths: Paths) -> None:
    now = [1_700_000_000.0]
    store = LearningStore(paths, lambda: now[0])
    assert store.pause() is None
    store.set_pause(Pause(now[0] + 60))
    pause = LearningStore(paths, lambda: now[0]).pause()
    assert pause == Pause(now[0] + 60) and pause.words.startswith("until ")
    now[0] += 60
    assert store.pause() is None
    store.set_pause(Pause())
    now[0] += 1_000 * DAY
    assert (pause := store.pause()) is not None and "learn resume" in pause.words
    store.set_pause(None)
    store.set_pause(None)
    assert store.pause() is None
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in learning_folder(paths).iterdir())


def test_a_choice_is_kept_for_its_repository_only_and_read_by_the_next_process(paths: Paths) -> None:
    store = LearningStore(paths)
    assert store.get("/a").choice is LearningChoice.UNASKED and store.all() == []
    changed = store.change("/a", lambda state: replace(state, choice=LearningChoice.ON))
    assert LearningStore(paths).get("/a") == changed == RepositoryState(root="/a", choice=LearningChoice.ON)
    assert LearningStore(paths).get("/b").choice is LearningChoice.UNASKED
    assert [each.root for each in LearningStore(paths).all()] == ["/a"]


def test_all_files_are_private(paths: Paths) -> None:
    LearningStore(paths).change("/a", lambda state: replace(state, last="x"))
    LearningStore(paths).add_minutes(1)
    LearningLog(paths).add("/a", LearningEvent.STARTED, "x")
    folder = learning_folder(paths)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


def test_changes_of_several_at_once_all_count(paths: Paths) -> None:
    def count() -> None:
        for _ in range(10):
            LearningStore(paths).change("/a", lambda state: replace(state, failures=state.failures + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert LearningStore(paths).get("/a").failures == 40


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"root": 3}', b"\xff\xfe"])
def test_a_damaged_file_is_set_aside_and_means_that_nobody_was_asked(
    paths: Paths, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store = LearningStore(paths)
    store.change("/a", lambda state: replace(state, choice=LearningChoice.ON))
    (file,) = learning_folder(paths).glob("repository-*.json")
    file.write_bytes(content)
    assert store.get("/a").choice is LearningChoice.UNASKED
    assert "is damaged" in caplog.text and file.with_suffix(".damaged").read_bytes() == content
    assert store.all() == []
    store.change("/a", lambda state: replace(state, choice=LearningChoice.OFF))
    assert store.get("/a").choice is LearningChoice.OFF


def test_a_disk_that_cannot_be_written_is_an_error_with_a_reason(paths: Paths) -> None:
    paths.data.parent.mkdir(parents=True)
    paths.data.write_text("")
    with pytest.raises(UnusablePath):
        LearningStore(paths).change("/a", lambda state: replace(state, last="x"))
    with pytest.raises(UnusablePath):
        LearningLog(paths).add("/a", LearningEvent.STARTED, "x")


def test_minutes_count_for_their_day(paths: Paths) -> None:
    now = 1_700_000_000.0
    store = LearningStore(paths, lambda: now)
    store.add_minutes(2.5)
    store.add_minutes(1)
    assert store.minutes_today() == 3.5
    now += DAY
    assert store.minutes_today() == 0.0
    store.add_minutes(1)
    assert store.minutes_today() == 1.0


def test_outcomes_are_kept_of_few_adapters_and_what_is_compared_does_not_move_on() -> None:
    state = RepositoryState(root="/a", serving=LearnedVersion(digest="new", since=0.0, before="old"))
    for digest in ("old", "new", *(f"other{n}" for n in range(9))):
        state = state.with_outcome(digest, accepted=digest == "new")
    assert len(state.outcomes) == MAX_ADAPTERS
    assert {"old": "0", "new": "1"}.items() <= state.outcomes.items()
    for number in range(MAX_OUTCOMES + 5):
        state = state.with_outcome("new", accepted=number > 2)
        state = state.with_outcome("other8", accepted=number > 2)
    assert state.outcomes["new"].startswith("1000") and len(state.outcomes["new"]) == MAX_OUTCOMES
    assert state.outcomes["other8"] == "1" * MAX_OUTCOMES, "the newest of what is not compared"


def test_the_log_has_every_entry_and_is_bounded(paths: Paths) -> None:
    log = LearningLog(paths, lambda: 5.0, max_bytes=2_000)
    log.add("/a", LearningEvent.LEARNED, "first", {"exact": 0.5})
    log.add("/b", LearningEvent.FAILED, "second")
    assert [(each.repository, each.event, each.text) for each in log.entries()] == [
        ("/a", "learned", "first"),
        ("/b", "failed", "second"),
    ]
    assert [each.figures for each in log.entries("/a")] == [{"exact": 0.5}]
    with log.file.open("ab") as file:
        file.write(b'{"time": 1, "repo')
    log.add("/a", LearningEvent.PAUSED, "after half a line")
    assert [each.text for each in log.entries()] == ["first", "second", "after half a line"]
    for number in range(100):
        log.add("/a", LearningEvent.PAUSED, f"number {number}")
    entries = log.entries()
    assert log.file.stat().st_size < 2_200
    assert entries[-1].text == "number 99" and len(entries) < 40
