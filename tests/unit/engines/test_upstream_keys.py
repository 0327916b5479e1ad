"""The key of an upstream server: a variable, or the system's keyring, and never anywhere else."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest

from peft_cli.app import application
from peft_core.errors import InvalidInput, NotFound, Unavailable
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon.engines.upstream import keys
from support.memory_keyring import MemoryKeyring

URL = "https://gpu.example.com:8000"
OTHER = "https://other.example.com"
KEY = "sk-of-the-team"


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setenv("PEFT_DAEMON_HOME", str(tmp_path))
    monkeypatch.setenv("PEFT_DAEMON_ENGINE", "upstream")
    monkeypatch.setenv("PEFT_DAEMON_UPSTREAM_URL", f"{URL}/v1")
    return Paths.from_environment()


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its name in ``support.memory_keyring``, as a test sets it by ``choose``."""
    before = keyring.get_keyring()
    choose("MemoryKeyring", monkeypatch)
    MemoryKeyring.kept.clear()
    yield "MemoryKeyring"
    keyring.set_keyring(before)


def choose(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the package find a keyring as it finds one for users: by the environment."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", name if "." in name else f"support.memory_keyring.{name}")
    keyring.core.init_backend()


def settings(**given: object) -> Settings:
    return Settings(**({"engine": "upstream", "upstream_url": URL} | given))  # type: ignore[arg-type]


def written_below(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def peft_daemon(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str, stdin: str = ""
) -> str:
    """What a command says, with its standard input no terminal."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    application()(list(arguments), standalone_mode=False)
    printed = capsys.readouterr()
    return printed.out + printed.err


def test_the_key_is_in_the_variable_that_the_setting_names(paths: Paths) -> None:
    named = settings(upstream_key_env="TEAM_KEY")
    address = keys.address_with_key(named, paths, URL, {"TEAM_KEY": " sk-1\n"})
    assert address.key == "sk-1" and "TEAM_KEY" in address.key_fix
    for environ in ({}, {"TEAM_KEY": " "}, {"TEAM_KEY": "sk\n1"}, {"TEAM_KEY": "schlüssel"}):
        with pytest.raises(InvalidInput) as caught:
            keys.address_with_key(named, paths, URL, environ)
        assert "TEAM_KEY" in caught.value.fix and "sk\n1" not in caught.value.line


def test_without_a_login_no_keyring_is_opened(paths: Paths) -> None:
    script = (
        "import sys; from peft_core.paths import Paths; from peft_core.settings import Settings;"
        "from peft_daemon.engines.upstream import keys;"
        f"assert keys.address_with_key(Settings(), Paths.from_environment(), {URL!r}).key == '';"
        "assert 'keyring' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ})


def test_a_login_is_used_for_its_address_until_the_logout_and_a_variable_goes_first(
    paths: Paths, backend: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = peft_daemon(capsys, monkeypatch, "upstream", "login", stdin=f"{KEY}\n")
    assert URL in said and KEY not in said
    address = keys.address_with_key(settings(), paths, URL)
    assert address.key == KEY and keys.LOGIN_COMMAND in address.key_fix and KEY not in repr(address)
    assert keys.address_with_key(settings(), paths, OTHER).key == ""
    named = settings(upstream_key_env="TEAM_KEY")
    assert keys.address_with_key(named, paths, URL, {"TEAM_KEY": "sk-2"}).key == "sk-2"
    said = peft_daemon(capsys, monkeypatch, "upstream", "logout")
    assert URL in said and MemoryKeyring.kept == {}
    assert keys.address_with_key(settings(), paths, URL).key == ""
    assert "no key of ours" in peft_daemon(capsys, monkeypatch, "upstream", "logout")


def test_the_key_is_in_no_file_output_or_log(
    paths: Paths,
    backend: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    said = peft_daemon(capsys, monkeypatch, "upstream", "login", "--json", stdin=f"{KEY}\n")
    assert json.loads(said)["url"] == URL
    for arguments in (("config", "--json"), ("upstream", "agree", "--yes", "--json")):
        said += peft_daemon(capsys, monkeypatch, *arguments)
    record = paths.config / "upstream-login.json"
    assert record.stat().st_mode & 0o077 == 0 and URL in record.read_text()
    assert KEY not in said + caplog.text + written_below(paths.config.parent).decode(errors="replace")


def test_a_login_elsewhere_leaves_no_key_behind(paths: Paths, backend: str) -> None:
    keys.login(paths, URL, KEY)
    keys.login(paths, OTHER, "sk-2")
    assert list(MemoryKeyring.kept.values()) == ["sk-2"]
    assert keys.address_with_key(settings(), paths, OTHER).key == "sk-2"


def test_a_key_that_somebody_deleted_in_the_keyring_is_missed_and_the_logout_works(paths: Paths, backend: str) -> None:
    keys.login(paths, URL, KEY)
    MemoryKeyring.kept.clear()
    with pytest.raises(NotFound, match="peft-daemon upstream login"):
        keys.address_with_key(settings(), paths, URL)
    assert keys.logout(paths) is not None and keys.read_login(paths) is None


@pytest.mark.parametrize("typed", ["", "\n", "two words\n", "schlüssel\n"])
def test_what_is_no_key_is_not_kept_nor_repeated(
    paths: Paths, backend: str, typed: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput) as caught:
        peft_daemon(capsys, monkeypatch, "upstream", "login", stdin=typed)
    assert MemoryKeyring.kept == {} and "schl" not in caught.value.line


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("keyring.backends.fail.Keyring", NotFound, "no keyring"),
        ("keyring.backends.null.Keyring", Unavailable, "did not keep"),
        ("LockedKeyring", Unavailable, "KeyringLocked"),
        ("HungKeyring", Unavailable, "does not answer"),
    ],
)
def test_a_keyring_that_cannot_be_used_says_so_and_names_the_other_way(
    paths: Paths, backend: str, name: str, error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "KEYRING_LIMIT_S", 0.2)
    choose(name, monkeypatch)
    with pytest.raises(error, match=words) as caught:
        keys.login(paths, URL, KEY)
    assert "upstream_key_env" in str(caught.value) and KEY not in str(caught.value)
    assert keys.read_login(paths) is None


def test_without_the_package_the_extra_is_named(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(NotFound, match=r"peft-daemon\[keyring\].*upstream_key_env"):
        keys.login(paths, URL, KEY)
