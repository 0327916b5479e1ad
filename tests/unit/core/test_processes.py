"""What a child process is started with: nothing of it comes from the folder that the user is in."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from peft_core import processes
from peft_core.child_process import ChildProcess
from peft_core.process_identity import ProcessIdentity
from peft_core.processes import (
    WORKING_FOLDER,
    find_program,
    isolated_environment,
    python_code,
    python_module,
    run,
    start_async,
)


@pytest.fixture
def visited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose ``json`` leaves a mark when it is imported, and in which this process now is."""
    folder = tmp_path / "visited"
    folder.mkdir()
    (folder / "json.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(processes, "_STARTED_IN", folder)
    return folder


def program(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file


def test_a_plain_python_would_import_from_the_visited_folder(visited: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", "import json"], check=True)
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("command", [python_module("json.tool", "--help"), python_code("import json")])
@pytest.mark.parametrize("search", [None, "", ".", f".{os.pathsep}", "relative/.."])
def test_a_python_imports_nothing_from_the_visited_folder(
    visited: Path, tmp_path: Path, command: tuple[str, ...], search: str | None
) -> None:
    environ = dict(os.environ) if search is None else {**os.environ, "PYTHONPATH": search}
    run(command, environ=environ, check=True, stdout=subprocess.DEVNULL)
    run(command, environ=environ, cwd=visited, check=True, stdout=subprocess.DEVNULL)
    assert not (tmp_path / "mark").exists()


async def test_an_engine_imports_nothing_from_the_visited_folder(visited: Path, tmp_path: Path) -> None:
    engine = await ChildProcess.spawn("json.tool", b"1")
    await engine.stop()
    assert not (tmp_path / "mark").exists()


def test_an_installation_on_an_absolute_pythonpath_is_found(visited: Path, tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "installed_there.py").write_text("")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join((".", str(tmp_path / "packages")))}
    run(python_code("import installed_there"), environ=environ, check=True)


async def test_children_run_in_a_folder_of_ours_unless_another_is_named(visited: Path, tmp_path: Path) -> None:
    where = python_code("import os; print(os.getcwd())")
    assert run(where, capture_output=True, text=True).stdout.strip() == WORKING_FOLDER
    assert run(where, cwd=tmp_path, capture_output=True, text=True).stdout.strip() == str(tmp_path)
    child = await start_async(where, stdout=asyncio.subprocess.PIPE)
    assert (await child.communicate())[0].decode().strip() == WORKING_FOLDER


def test_a_program_is_not_taken_from_the_visited_folder(
    visited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(visited, "tool")
    program(visited / "bin", "tool")
    (tmp_path / "link").symlink_to(visited / "bin")
    entries = [".", "", "bin", str(visited), str(visited / "bin"), str(tmp_path / "link")]
    monkeypatch.setenv("PATH", os.pathsep.join(entries))
    assert find_program("tool") is None
    installed = program(tmp_path / "installed", "tool")
    monkeypatch.setenv("PATH", os.pathsep.join([*entries, str(installed.parent)]))
    assert find_program("tool") == str(installed)
    assert find_program("tool", installed.parent) is None


def test_the_users_own_programs_are_found_from_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = program(tmp_path / ".local" / "bin", "tool")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(mine.parent))
    monkeypatch.setattr(processes, "_STARTED_IN", tmp_path)
    assert find_program("tool", tmp_path) == str(mine)


def test_a_program_without_an_absolute_path_is_not_started() -> None:
    with pytest.raises(ValueError, match="find_program"):
        run(["git", "--version"])


def test_an_environment_loses_what_is_relative_and_what_has_a_python_run_something_else() -> None:
    given = {
        "PATH": ":.:bin:/usr/bin",
        "LD_LIBRARY_PATH": ":/usr/x/lib",
        "PYTHONPATH": ":here",
        "PYTHONHOME": "here",
        "PYTHONSTARTUP": "/home/me/startup.py",
        "GIT_CONFIG_GLOBAL": "config",
        "HOME": "/home/me",
        "LANG": "C.UTF-8",
        "LD_PRELOAD": "libmine.so",
    }
    assert isolated_environment(given) == {
        "PATH": "/usr/bin",
        "LD_LIBRARY_PATH": "/usr/x/lib",
        "HOME": "/home/me",
        "LANG": "C.UTF-8",
        "LD_PRELOAD": "libmine.so",
    }
    assert isolated_environment({"PATH": "."})["PATH"] == os.defpath


@pytest.mark.parametrize("search", [None, "", ".", f".{os.pathsep}", "../visited"])
def test_the_command_itself_does_not_import_from_the_visited_folder(
    visited: Path, tmp_path: Path, search: str | None
) -> None:
    (visited / "json.py").rename(visited / "wave.py")
    code = "import os, sys, wave; print(os.environ.get('PYTHONPATH'), *sys.path, sep=os.linesep)"
    guarded = f"from peft_core.processes import distrust_working_folder as d; d(); {code}"
    environ = {**os.environ, "PYTHONPATH": search} if search is not None else dict(os.environ)
    done = subprocess.run([sys.executable, "-c", guarded], check=True, capture_output=True, text=True, env=environ)
    assert not (tmp_path / "mark").exists()
    assert str(visited) not in done.stdout
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env=environ)
    assert (tmp_path / "mark").exists(), "the trap would have noticed"


def test_what_libraries_start_does_not_import_from_the_visited_folder_either(visited: Path, tmp_path: Path) -> None:
    environ: dict[str, str] = dict(os.environ)
    processes.distrust_working_folder(environ)
    subprocess.run([sys.executable, "-c", "import json"], check=True, env=environ)
    assert not (tmp_path / "mark").exists()


def test_promise_10_a_process_is_its_pid_and_its_start() -> None:
    me = ProcessIdentity.current()
    assert me.find() is not None
    assert ProcessIdentity(me.pid, me.created - 1).find() is None
    assert ProcessIdentity(2**31 - 1, me.created).find() is None
    assert ProcessIdentity(-5, me.created).find() is None


async def test_promise_10_a_zombie_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    import psutil

    alive = psutil.Process(child.pid)
    identity = ProcessIdentity(
        child.pid, ProcessIdentity.current().created - (psutil.Process().create_time() - alive.create_time())
    )
    assert identity.find() is not None
    child.stdin.close()
    assert await identity.ends_within(30), "although nobody has collected its exit status"
    child.wait()
