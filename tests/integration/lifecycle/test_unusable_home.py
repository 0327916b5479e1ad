"""A home that cannot be used: every command says so in one line, with a next step, and never with a traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

from peft_cli import output
from peft_cli.app import application
from support import every_command
from support.every_command import COMMANDS, QUICK, Said, leaves, run

CALM = {"doctor": 1}
"""Exit codes of commands that report rather than end."""
OF_THE_HOME = ("start", "stop", "status", "doctor", "config", "adapters list", "adapters remove", "models list")
"""Commands that read most of what lies in a home."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What commands read and write; nothing of the tests' machine is seen."""
    for name in [name for name in os.environ if name.startswith("PEFT_DAEMON_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PEFT_DAEMON_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PEFT_DAEMON_OFFLINE", "true")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.py").write_text("x = \n")
    return tmp_path


def judge(said: Said) -> None:
    """What must hold for whatever a command says."""
    text = f"{said.command} ended with {said.exit_code}:\n{said.out[-300:]}\n{said.err[-3000:]}"
    assert "Traceback" not in said.out + said.err, text
    assert "unexpected error" not in said.out + said.err, text
    if said.exit_code:
        assert said.exit_code == CALM.get(said.command, said.exit_code), text
        assert said.exit_code in (2, 3, 5, 6, 8) or said.command in CALM, text
        lines = [line for line in said.err.splitlines() if line.startswith("peft-daemon: ")]
        # No daemon is told on standard output.
        assert len(lines) == (0 if said.command in CALM or "no daemon runs" in said.out else 1), text


def a_file(home: Path) -> None:
    home.write_text("")


def below_a_file(home: Path) -> None:
    a_file(home)
    os.environ["PEFT_DAEMON_HOME"] = str(home / "deeper")


def a_folder_at(*place: str) -> Callable[[Path], None]:
    def make(home: Path) -> None:
        home.joinpath(*place, "something").mkdir(parents=True)
        for path in (home, *(home.joinpath(*place[:n]) for n in range(1, len(place)))):
            path.chmod(0o700)

    return make


def a_file_at(*place: str) -> Callable[[Path], None]:
    def make(home: Path) -> None:
        home.joinpath(*place[:-1]).mkdir(parents=True)
        home.joinpath(*place).write_text("")

    return make


HOMES = {
    "a file": a_file,
    "below a file": below_a_file,
    "a folder for the info file": a_folder_at("run", "daemon.json"),
    "a folder for the daemon's lock": a_folder_at("run", "daemon.lock"),
    "a folder for the starter's lock": a_folder_at("run", "starter.lock"),
    "a folder for the log": a_folder_at("state", "daemon.log"),
    "a folder for failed starts": a_folder_at("state", "failed-starts.json"),
    "a folder for the settings": a_folder_at("config", "config.toml"),
    "a folder for the names of adapters": a_folder_at("data", "adapters", "names.json"),
    "a folder for feedback": a_folder_at("data", "feedback", "feedback.db"),
    "a file for the data": a_file_at("data"),
    "a file for the adapters": a_file_at("data", "adapters"),
    "a file for the state": a_file_at("state"),
    "a file for the runtime folder": a_file_at("run"),
    "a file for the models": a_file_at("cache", "models"),
}


def test_every_command_is_tried() -> None:
    assert set(COMMANDS) == set(leaves(typer.main.get_command(application())))


@pytest.mark.parametrize("home", HOMES)
def test_every_command_says_what_is_wrong(home: str, folder: Path) -> None:
    HOMES[home](folder / "home")
    for command in QUICK if home == "a file" else OF_THE_HOME:
        judge(run(command, folder))


@pytest.mark.skipif(sys.platform == "win32", reason="modes of folders mean something else there")
def test_a_home_that_may_only_be_read_is_told_by_every_command(folder: Path) -> None:
    user = os.getuid() or 65534
    with tempfile.TemporaryDirectory() as open_folder:  # pytest's own can be entered by this user only
        home = Path(open_folder, "home")
        for part in ("run", "state", "data/adapters", "config", "cache/models"):
            (home / part).mkdir(parents=True)
        for path in (home, *home.rglob("*")):
            path.chmod(0o500)
            os.chown(path, user, -1)
        Path(open_folder).chmod(0o777)
        shutil.copy(folder / "a.py", open_folder)
        try:
            done = subprocess.run(
                [sys.executable, every_command.__file__, str(user), open_folder],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PEFT_DAEMON_HOME": str(home)},
                cwd=open_folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            for path in (home, *home.rglob("*")):
                path.chmod(0o700)
        said = [Said(**json.loads(line)) for line in done.stdout.splitlines()]
    assert len(said) == len(QUICK), done.stderr
    for each in said:
        judge(each)
    refused = {each.command for each in said if str(home) in each.err}
    assert {"start", "complete", "adapters use", "models pull"} <= refused
    assert str(home) in next(each.out for each in said if each.command == "doctor")


def test_an_error_that_nobody_expects_is_one_line_that_says_where_its_traceback_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("peft_cli.config.resolve", fail)
    said = run("config", folder)
    assert said.exit_code == 1
    (line,) = said.err.splitlines()
    assert "RuntimeError: first line second line" in line
    file = folder / "home" / "state" / "last-traceback.txt"
    assert str(file) in line
    assert "in fail" in file.read_text()
    assert file.stat().st_mode & 0o077 == 0

    (folder / "home" / "state").rename(folder / "elsewhere")
    (folder / "home" / "state").write_text("")
    (line,) = run("config", folder).err.splitlines()
    assert f"{output.TRACEBACK}=1" in line
    monkeypatch.setenv(output.TRACEBACK, "1")
    assert "in fail" in run("config", folder).err


def test_what_a_console_cannot_show_ends_no_command_and_json_stays_json(folder: Path) -> None:
    environ = {**os.environ, "PYTHONIOENCODING": "cp1252", "PEFT_DAEMON_MODELS_DIR": "/проект"}
    command = [sys.executable, "-m", "peft_daemon", "config"]
    for options in ([], ["--json"]):
        done = subprocess.run([*command, *options], env=environ, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
    assert "/проект" in {each["value"] for each in json.loads(done.stdout.decode("cp1252"))}
