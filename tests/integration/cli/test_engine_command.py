"""``engine`` as it is typed: programs are listed, measured with a tiny model, and refusals say what to do."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from peft_core.paths import Paths
from peft_daemon.engines.builds.builder import BuildRecord
from peft_daemon.models.catalogue import open_catalogue
from peft_daemon.models.store import ModelStore
from support.llama_server import llama_server_program
from support.running_daemon import home_environment, run_cli
from support.synthetic_adapter import TinyModel
from support.tiny_entry import HUB, tiny_entry


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home with a tiny model, and a ``llama-server`` on PATH."""
    given = TinyModel.random().write(tmp_path / "given.gguf", context_tokens=2048)
    entry = msgspec.structs.replace(tiny_entry(given.path.read_bytes(), HUB), context_tokens=2048)
    ModelStore(tmp_path / "models", offline=True).pull(entry, local=given.path)
    open_catalogue(Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path / "home")})).add(entry)
    # Linked: what lies in the folder that a command is typed in is passed over, and the tests' own may lie there.
    program = program_on_path(tmp_path)
    program.parent.mkdir()
    program.symlink_to(llama_server_program())
    path = os.pathsep.join((str(program.parent), os.environ["PATH"]))
    home = home_environment(tmp_path / "home", tmp_path / "models")
    return {**home, "PEFT_DAEMON_MODEL": entry.id, "PEFT_DAEMON_THREADS": "1", "PATH": path}


def program_on_path(folder: Path) -> Path:
    return folder / "programs" / "llama-server"


def typed(*arguments: str, environment: dict[str, str], exit_code: int = 0) -> subprocess.CompletedProcess[str]:
    done = run_cli(*arguments, environment=environment, check=False)
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done


def test_programs_are_listed_measured_and_chosen(environment: dict[str, str], tmp_path: Path) -> None:
    listed = json.loads(typed("engine", "list", "--json", environment=environment).stdout)
    wheel, other = listed["programs"]
    assert (wheel["kind"], wheel["path"], wheel["in_use"]) == ("wheel", None, True)
    assert "AVX2" in wheel["features"] or wheel["features"]
    assert (other["kind"], other["path"]) == ("path", str(program_on_path(tmp_path)))
    assert other["version"] and other["features"] and other["measured"] is None

    measured = typed("engine", "list", "--measure", "--json", environment=environment)
    assert measured.stderr.count("measuring wheel with tiny") == 2
    wheel, other = json.loads(measured.stdout)["programs"]
    assert min(wheel["reading"], wheel["writing"], other["reading"], other["writing"]) > 0
    assert wheel["gain"] == 1
    # Of two tiny runs either may be faster; what is in use agrees with what was measured.
    assert other["in_use"] is (other["gain"] >= 1.05) is not wheel["in_use"]

    again = typed("engine", "list", "--measure", environment=environment)
    assert "measuring" not in again.stderr
    assert "tok/s" in again.stdout and "* in use: " in again.stdout
    assert "measuring" in typed("engine", "measure", environment=environment).stderr


def test_setup_measures_a_build_before_the_daemon_starts(environment: dict[str, str]) -> None:
    paths = Paths.from_environment(environment)
    folder = paths.builds / "llama.cpp-7-cpu-0"
    folder.mkdir(parents=True)
    (folder / "llama-server").symlink_to(llama_server_program())
    record = BuildRecord(
        name=folder.name,
        version="7",
        device="cpu",
        source_sha256="0" * 64,
        options=(),
        compiler="cc",
        cmake="3.25",
        processor="",
        seconds=1.0,
        created="2026-11-29T12:00:00+00:00",
        sha256={},
    )
    (folder / "build.json").write_bytes(msgspec.json.encode(record))
    try:
        assert "measuring" in typed("setup", environment=environment).stderr
        assert "measuring" not in typed("setup", environment=environment).stderr
        rows = json.loads(typed("engine", "list", "--json", environment=environment).stdout)["programs"]
        (build,) = [row for row in rows if row["kind"] == "build"]
        assert build["measured"] and build["reading"] > 0
    finally:
        run_cli("stop", environment=environment)


def test_refusals_say_what_to_type(environment: dict[str, str], tmp_path: Path) -> None:
    refused = typed("engine", "build", "--device", "gpu", environment=environment, exit_code=2)
    assert "Use auto, cpu, cuda, vulkan, metal" in refused.stderr
    removed = typed("engine", "build", "--remove", environment=environment, exit_code=3)
    assert "`peft-daemon engine build`" in removed.stderr
    (tmp_path / "sources.tar.gz").write_text("nothing of the kind")
    if subprocess.run(["sh", "-c", "command -v cmake && command -v c++"], check=False, capture_output=True).returncode:
        pytest.skip("needs cmake and a compiler: apt install cmake g++")
    wrong = ("engine", "build", "--from", str(tmp_path / "sources.tar.gz"), "--device", "cpu")
    refused = typed(*wrong, environment=environment, exit_code=2)
    assert "is not xllamacpp" in refused.stderr
    offline = {**environment, "PEFT_DAEMON_OFFLINE": "true"}
    refused = typed("engine", "build", "--device", "cpu", "--json", environment=offline, exit_code=8)
    error = json.loads(refused.stdout)["error"]
    assert "the network is off" in error["what"] and "--from FILE" in error["fix"]
