"""Which daemon serves which client where versions and installations differ, and what the user is told."""

from __future__ import annotations

import importlib.metadata
import itertools
from pathlib import Path

import pytest

import peft_core
from peft_core.api_types import PROTOCOL_VERSION
from peft_core.errors import Conflict
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon.lifecycle import installations
from peft_daemon.lifecycle.installations import (
    describe_other,
    describe_replaced,
    own_installation,
    record_replaced,
    require_replaceable,
    serves,
)
from peft_daemon.lifecycle.runtime_info import DaemonInfo

VERSIONS = ("0.1.0", "0.2.0rc1", "0.2.0", "0.10.0", "1.0")
PRESENT = "0.2.0"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """This client is of ``PRESENT``, and so is its installation."""
    monkeypatch.setattr(peft_core, "__version__", PRESENT)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: PRESENT)


@pytest.fixture
def other(tmp_path: Path) -> str:
    """The folder of another installation."""
    (tmp_path / "other").mkdir()
    return str(tmp_path / "other")


def daemon(version: str, installation: str = "", *, protocol: int = PROTOCOL_VERSION, **settings: int) -> DaemonInfo:
    return DaemonInfo(
        pid=1,
        created=0.0,
        address="unix:/nowhere.sock",
        version=version,
        protocol=protocol,
        config_digest=Settings(**settings).digest(),
        started=0.0,
        installation=installation or own_installation(),
    )


def test_promise_05_a_daemon_serves_with_the_same_protocol_and_settings_and_no_older_version(other: str) -> None:
    assert [serves(daemon(version, other), Settings()) for version in VERSIONS] == [False, False, True, True, True]
    assert not serves(daemon(PRESENT, slots=2), Settings())
    assert serves(daemon(PRESENT, slots=2), Settings(slots=2))
    assert not serves(daemon("0.10.0", other, protocol=PROTOCOL_VERSION + 1), Settings())


def test_promise_05_settings_have_one_digest_in_versions_with_other_defaults_and_more_settings() -> None:
    assert Settings().digest() == Settings(model=Settings().model).digest() != Settings(slots=2).digest()
    assert Settings(slots=2, threads=3).digest() == Settings(threads=3, slots=2).digest()


def test_promise_06_a_newer_daemon_is_never_stopped_for_an_older_client(other: str) -> None:
    for info in (daemon("0.10.0", other, protocol=PROTOCOL_VERSION + 1), daemon("0.10.0", other, slots=2)):
        for replace in (True, False):
            with pytest.raises(Conflict, match="newer installation in") as caught:
                require_replaceable(info, Settings(), replace=replace)
            assert other in caught.value.why
            assert "PEFT_DAEMON_HOME" in caught.value.fix


def test_promise_06_a_client_that_outlived_an_update_is_told_to_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.10.0")
    assert serves(daemon("0.10.0"), Settings()), "one with the same protocol serves it"
    with pytest.raises(Conflict, match="updated while this client was running"):
        require_replaceable(daemon("0.10.0", protocol=PROTOCOL_VERSION + 1), Settings(), replace=True)


def test_promise_06_a_daemon_that_outlived_a_downgrade_is_replaced() -> None:
    assert not serves(daemon("0.10.0"), Settings())
    require_replaceable(daemon("0.10.0"), Settings(), replace=False)


def test_promise_06_installations_used_in_turn_settle_on_one_daemon(
    other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever two versions they have and whichever comes first, a daemon is replaced once at most."""
    for versions in itertools.permutations(VERSIONS, 2):
        running, replaced = "", 0
        for version in versions * 4:
            monkeypatch.setattr(peft_core, "__version__", version)
            info = daemon(running, other if running != version else own_installation())
            if running and not serves(info, Settings()):
                require_replaceable(info, Settings(), replace=True)
                replaced += 1
                running = ""
            running = running or version
        assert replaced <= 1, versions


def test_both_installations_are_named_with_what_to_do(tmp_path: Path, other: str) -> None:
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path / "home")})
    assert describe_other(daemon(PRESENT)) == describe_other(daemon("0.1.0")) == ""
    record_replaced(paths, daemon("0.1.0"))
    assert describe_replaced(paths) == [], "an update of this installation is nothing to tell"
    record_replaced(paths, daemon("0.1.0", other))
    for line in (*describe_replaced(paths), describe_other(daemon("0.1.0", other))):
        assert "0.1.0" in line
        assert other in line
        assert "PEFT_DAEMON_HOME" in line


def test_an_installation_that_is_gone_or_was_used_long_ago_is_not_told(
    tmp_path: Path, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path / "home")})
    record_replaced(paths, daemon("0.1.0", other))
    with monkeypatch.context() as later:
        later.setattr(installations, "REPLACED_TOLD_S", -1.0)
        assert describe_replaced(paths) == []
    assert describe_replaced(paths)
    Path(other).rmdir()
    assert describe_replaced(paths) == []


def test_promise_05_restarts_again_and_again_for_other_settings_are_told(
    tmp_path: Path, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path / "home")})
    for _ in range(installations.MANY_RESTARTS - 1):
        record_replaced(paths, daemon(PRESENT, slots=2))
    record_replaced(paths, daemon("0.1.0", other))
    assert len(describe_replaced(paths)) == 1, "somebody may have tried a setting"
    for _ in range(10):
        record_replaced(paths, daemon(PRESENT, slots=2))
    _, line = describe_replaced(paths)
    assert "peft-daemon config" in line
    monkeypatch.setattr(installations, "RESTARTS_COUNTED_S", -1.0)
    assert len(describe_replaced(paths)) == 1, "long ago"
