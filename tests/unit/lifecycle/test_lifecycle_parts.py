"""Back-off, log, hand-over, activity, addresses: what the life cycle is made of."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.errors import Conflict, InvalidInput, NotFound, Unavailable
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_core.wire_errors import error_body
from peft_daemon.lifecycle.background_process import (
    HANDOVER_VARIABLE,
    handover_environment,
    open_log,
    prepare_log,
    read_log_tail,
    rotate_log,
    take_handover,
)
from peft_daemon.lifecycle.failed_starts import (
    FAILURE_MEMORY_S,
    FailedStart,
    FailedStarts,
    check_backoff,
    read_failed_starts,
    record_failed_start,
)
from peft_daemon.lifecycle.sockets import MAX_SOCKET_PATH_BYTES, open_listener, remove_stale_sockets, socket_folder
from peft_daemon.routes.middleware import Activity


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path)})


def test_promise_12_the_waiting_grows_to_a_cap(paths: Paths) -> None:
    waits = []
    for _ in range(8):
        record_failed_start(paths, FailedStart(1000.0, "boom"))
        waits.append(read_failed_starts(paths, 1000.0).wait_s(1000.0))
    assert waits == [0, 0, 5, 10, 20, 40, 60, 60]
    assert stat.S_IMODE((paths.state / "failed-starts.json").stat().st_mode) == 0o600


def test_promise_12_while_waiting_the_error_the_daemon_met_is_told(paths: Paths) -> None:
    told = error_body(NotFound("the model is missing", why="not fetched", fix="Run this"))
    for _ in range(3):
        record_failed_start(paths, FailedStart(1000.0, "boom", told))
    with pytest.raises(NotFound, match=r"the model is missing: not fetched\. Run this"):
        check_backoff(paths, 1000.0)


def test_promise_12_the_waiting_passes_and_the_failures_are_forgotten(paths: Paths) -> None:
    for _ in range(3):
        record_failed_start(paths, FailedStart(1000.0, "boom"))
    with pytest.raises(Unavailable, match=r"the next try is in 2 s: its last lines:\nboom"):
        check_backoff(paths, 1003.0)
    check_backoff(paths, 1005.0)
    assert read_failed_starts(paths, 1000.0 + FAILURE_MEMORY_S) == FailedStarts()


def test_promise_12_a_clock_set_back_does_not_lock_the_user_out(paths: Paths) -> None:
    for _ in range(9):
        record_failed_start(paths, FailedStart(1_000_000.0, "boom"))
    check_backoff(paths, 1000.0)


@given(st.binary(max_size=100))
def test_a_damaged_record_of_failures_counts_as_none(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path_factory.mktemp("home"))})
    record_failed_start(paths, FailedStart(1.0, "boom"))
    (paths.state / "failed-starts.json").write_bytes(data)
    check_backoff(paths, 1.0)


def test_promise_22_the_log_is_cut_and_one_predecessor_kept(paths: Paths) -> None:
    prepare_log(paths)
    with open_log(paths) as output:
        os.write(output, b"old\n" * 100)
        rotate_log(paths.log_file, limit_bytes=400)
        assert paths.log_file.stat().st_size == 400, "not above the limit"
        rotate_log(paths.log_file, limit_bytes=399)
        os.write(output, b"new\n")
    assert paths.log_file.read_bytes() == b"new\n", "whoever has it open goes on at its beginning"
    predecessor = paths.log_file.with_name("daemon.log.1")
    assert predecessor.read_bytes() == b"old\n" * 100
    assert stat.S_IMODE(predecessor.stat().st_mode) == stat.S_IMODE(paths.log_file.stat().st_mode) == 0o600


def test_the_tail_begins_where_the_daemon_began(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert read_log_tail(path) == ""
    path.write_bytes(b"before\n" + b"\n".join(b"%d" % n for n in range(100)) + b"\n\n \xff\x1b[2Jend\n")
    assert read_log_tail(path, 7, lines=3) == "98\n99\n \ufffd[2Jend"
    assert read_log_tail(path, 0, lines=1000).startswith("before\n0\n")
    assert not read_log_tail(path, 7, lines=1000).startswith("before")
    assert read_log_tail(path, 10**9, lines=1000).startswith("before"), (
        "a log cut since then is read from its beginning"
    )


@given(st.binary(max_size=300), st.integers(0, 400))
def test_the_tail_is_printable_whatever_was_printed(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, offset: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_bytes(data)
    assert all(c.isprintable() or c in "\t\n" for c in read_log_tail(path, offset))


settings = st.builds(
    Settings,
    model=st.text(min_size=1, max_size=20),
    models_dir=st.text(max_size=20),
    port=st.integers(0, 65535),
    idle_exit_s=st.integers(0, 10**6),
    offline=st.booleans(),
)


@given(settings)
def test_promise_07_what_is_handed_over_arrives_unchanged_and_once(given_settings: Settings) -> None:
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": "/home/some one/ü"})
    environ = handover_environment(given_settings, paths, {"PEFT_DAEMON_SLOTS": "7"})
    taken = take_handover(environ)
    assert taken == (given_settings, paths)
    assert taken[0].digest() == given_settings.digest()
    assert environ == {"PEFT_DAEMON_SLOTS": "7"}
    assert take_handover(environ) is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"settings":{},"paths":{}}', '{"settings":{"new":1},"paths":{}}'])
def test_a_handover_of_another_version_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        take_handover({HANDOVER_VARIABLE: text})


def test_promise_15_only_time_without_requests_is_idle() -> None:
    now = 0.0
    activity = Activity(lambda: now)
    now = 50.0
    assert activity.idle_s == 50
    with activity.busy(), activity.busy():
        now = 500.0
        assert (activity.in_flight, activity.idle_s, activity.should_stop(60)) == (2, 0, False)
    now = 559.0
    assert not activity.should_stop(60)
    now = 560.0
    assert activity.should_stop(60)
    assert not activity.should_stop(0), "0 means never"
    activity.request_stop()
    assert activity.should_stop(0)


def test_work_in_the_background_is_told_of_requests_at_once_and_keeps_the_daemon() -> None:
    now = 0.0
    activity = Activity(lambda: now)
    begun: list[float] = []
    needed = True
    activity.serve_background_work(lambda: begun.append(now), lambda: needed)
    with activity.busy():
        assert begun == [0.0]
    now = 100.0
    assert not activity.should_stop(60)
    needed = False
    assert activity.should_stop(60)
    needed = True
    activity.request_stop()
    assert activity.should_stop(60), "who asks for the end is not kept waiting"


def test_a_failing_request_ends_as_well() -> None:
    activity = Activity()
    with contextlib.suppress(ValueError), activity.busy():
        raise ValueError
    assert activity.in_flight == 0


@given(st.one_of(st.ip_addresses().map(str), st.text(max_size=30)))
def test_promise_20_only_loopback_is_bound(tmp_path_factory: pytest.TempPathFactory, host: str) -> None:
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path_factory.mktemp("home"))})
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if loopback:
        return
    with pytest.raises(InvalidInput), open_listener(Settings(listen="tcp", host=host), paths):
        pass


def test_promise_20_tcp_has_a_token_and_a_port_of_its_own(paths: Paths) -> None:
    with (
        open_listener(Settings(listen="tcp"), paths) as one,
        open_listener(Settings(listen="tcp", host="localhost"), paths) as two,
    ):
        assert one.address.startswith("http://127.0.0.1:")
        assert one.address != two.address
        assert one.token != two.token
        assert (one.path, two.path) == (None, None)


def test_promise_19_the_socket_is_private_from_the_start_and_removed_at_the_end(paths: Paths) -> None:
    mask = os.umask(0)
    try:
        with open_listener(Settings(), paths) as listener:
            assert listener.path is not None
            assert stat.S_IMODE(listener.path.stat().st_mode) == 0o600
            assert stat.S_IMODE(listener.path.parent.stat().st_mode) == 0o700
            assert listener.address == f"unix:{listener.path}"
            assert listener.token == ""
        assert not listener.path.exists()
        assert os.umask(0) == 0, "the mask of the process is as it was"
    finally:
        os.umask(mask)


@given(st.lists(st.text("abcü", min_size=1, max_size=60), min_size=1, max_size=5))
def test_promise_19_a_socket_path_fits_whatever_the_home(parts: list[str]) -> None:
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": "/" + "/".join(parts)})
    folder = socket_folder(paths)
    assert len(os.fsencode(folder / "d-00000000.sock")) <= MAX_SOCKET_PATH_BYTES
    assert folder == socket_folder(paths), "every client and daemon agree on it"


def test_promise_19_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path / ("x" * 100))})
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    folder = socket_folder(deep)
    folder.symlink_to(tmp_path)
    try:
        with pytest.raises(Conflict, match="symbolic link"), open_listener(Settings(), deep):
            pass
    finally:
        folder.unlink()


def test_stale_sockets_are_removed_and_nothing_else(paths: Paths) -> None:
    remove_stale_sockets(paths)
    paths.runtime.mkdir()
    for name in ("d-00000000.sock", "engine.sock", "daemon.lock", "mine.txt"):
        (paths.runtime / name).touch()
    remove_stale_sockets(paths)
    assert sorted(path.name for path in paths.runtime.iterdir()) == ["daemon.lock", "mine.txt"]
