"""What ``llama_server = auto`` takes: kept measurements decide, while they hold, and choosing starts nothing."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from peft_core import processes
from peft_core.paths import Paths
from peft_core.processor import processor_name
from peft_core.settings import Settings, resolve
from peft_daemon.engines.llamacpp import programs
from peft_daemon.engines.llamacpp.choice import (
    LEAST_GAIN,
    MeasuredProgram,
    ProgramStamp,
    choose_program,
    keep_measurements,
    measurement_of,
    read_measurements,
    wheel_version,
    with_chosen_program,
)
from peft_daemon.engines.llamacpp.programs import Program, ask_program, find_programs

MODEL, OTHER_MODEL = "a" * 64, "b" * 64


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path / "home")})


def program(folder: Path, name: str = "llama-server") -> Path:
    """A program that leaves a mark when it runs."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\ntouch '{folder}/ran'\n")
    file.chmod(0o755)
    return file


def measured(file: Path, gain: float = 2.0, **changes: object) -> MeasuredProgram:
    one = MeasuredProgram(
        program=ProgramStamp.of(file),
        wheel=wheel_version(),
        model="tiny",
        model_sha256=MODEL,
        processor=processor_name(),
        devices=(),
        reading=100 * gain,
        writing=20 * gain,
        wheel_reading=100,
        wheel_writing=20,
        measured="2026-11-29T12:00:00+00:00",
    )
    return msgspec.structs.replace(one, **changes)


def test_nothing_measured_is_the_wheel(paths: Paths) -> None:
    choice = choose_program(Settings(), paths, MODEL)
    assert (choice.program, choice.chosen, choice.problem) == (None, False, "")


def test_the_fastest_is_taken_and_not_started(paths: Paths, tmp_path: Path) -> None:
    slow, fast = program(tmp_path / "slow"), program(tmp_path / "fast")
    keep_measurements(paths, [measured(slow, 1.3), measured(fast, 1.7)])
    choice = choose_program(Settings(), paths, MODEL)
    assert (choice.program, choice.chosen, choice.problem) == (fast, True, "")
    assert "1.70 times as fast" in choice.why
    assert with_chosen_program(Settings(), paths, MODEL).llama_server == str(fast)
    assert not list(tmp_path.rglob("ran"))


def test_reading_and_writing_count_as_in_a_suggestion(paths: Paths, tmp_path: Path) -> None:
    """100 tokens read at 100 and 20 written at 20 a second: a second each."""
    one = measured(program(tmp_path), reading=400, writing=10)
    assert one.gain == pytest.approx(2 / 2.25)
    assert measured(program(tmp_path), reading=0).gain == 0


@pytest.mark.parametrize(("gain", "taken"), [(LEAST_GAIN - 0.01, False), (LEAST_GAIN + 0.01, True), (0.5, False)])
def test_a_small_gain_is_none(paths: Paths, tmp_path: Path, gain: float, taken: bool) -> None:
    keep_measurements(paths, [measured(program(tmp_path), gain)])
    assert choose_program(Settings(), paths, MODEL).chosen is taken


def test_another_model_was_not_measured(paths: Paths, tmp_path: Path) -> None:
    keep_measurements(paths, [measured(program(tmp_path))])
    assert choose_program(Settings(), paths, OTHER_MODEL).program is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda file: file.unlink(), "is gone"),
        (lambda file: file.write_text("#!/bin/sh\nanother\n"), "has changed since"),
        (lambda file: os.utime(file, (1, 1)), "has changed since"),
    ],
)
def test_a_program_that_is_not_the_measured_one_is_not_used(
    paths: Paths, tmp_path: Path, change: object, problem: str
) -> None:
    file = program(tmp_path)
    keep_measurements(paths, [measured(file)])
    change(file)  # type: ignore[operator]
    choice = choose_program(Settings(), paths, MODEL)
    assert (choice.program, choice.chosen) == (None, False)
    assert problem in choice.problem and "`peft-daemon engine measure`" in choice.problem


@pytest.mark.parametrize(
    ("changes", "problem"), [({"wheel": "0.1"}, "another version"), ({"processor": "Z80"}, "another processor")]
)
def test_a_measurement_of_other_circumstances_does_not_hold(
    paths: Paths, tmp_path: Path, changes: dict[str, object], problem: str
) -> None:
    file = program(tmp_path)
    keep_measurements(paths, [measured(file, **changes)])
    choice = choose_program(Settings(), paths, MODEL)
    assert choice.program is None and problem in choice.problem
    assert measurement_of(file, paths, MODEL) is None


def test_the_next_best_steps_in_for_one_that_is_gone(paths: Paths, tmp_path: Path) -> None:
    best, second = program(tmp_path / "best"), program(tmp_path / "second")
    keep_measurements(paths, [measured(best, 3), measured(second, 1.5)])
    best.unlink()
    choice = choose_program(Settings(), paths, MODEL)
    assert choice.program == second and "best" in choice.problem


def test_a_setting_decides_over_measurements(paths: Paths, tmp_path: Path) -> None:
    fast, named = program(tmp_path / "fast"), program(tmp_path / "named")
    keep_measurements(paths, [measured(fast, 9)])
    assert choose_program(Settings(llama_server="wheel"), paths, MODEL).program is None
    choice = choose_program(Settings(llama_server=str(named)), paths, MODEL)
    assert (choice.program, choice.chosen) == (named, False)
    assert choose_program(Settings(engine="torch"), paths, MODEL).program is None


def test_a_users_file_with_wheel_still_works(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('llama_server = "wheel"\n')
    assert resolve(environ={}, user_file=file).settings.llama_server == "wheel"
    assert resolve(environ={}).settings.llama_server == "auto"


def test_another_measurement_replaces_the_first_and_those_of_gone_programs_are_forgotten(
    paths: Paths, tmp_path: Path
) -> None:
    one, gone = program(tmp_path / "one"), program(tmp_path / "gone")
    keep_measurements(paths, [measured(one, 1.5), measured(gone), measured(one, 1.2, model_sha256=OTHER_MODEL)])
    gone.unlink()
    keep_measurements(paths, [measured(one, 1.8)])
    kept = {(each.program.path, each.model_sha256): each.gain for each in read_measurements(paths)}
    assert kept == {(str(one), MODEL): pytest.approx(1.8), (str(one), OTHER_MODEL): pytest.approx(1.2)}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"programs":[1]}'])
def test_a_damaged_file_is_as_none(paths: Paths, content: bytes) -> None:
    paths.program_speeds.parent.mkdir(parents=True)
    paths.program_speeds.write_bytes(content)
    paths.program_speeds.chmod(0o600)
    assert read_measurements(paths) == ()


def test_a_file_that_others_may_write_is_not_trusted(paths: Paths, tmp_path: Path) -> None:
    keep_measurements(paths, [measured(program(tmp_path))])
    assert choose_program(Settings(), paths, MODEL).chosen
    paths.program_speeds.chmod(0o666)
    assert not choose_program(Settings(), paths, MODEL).chosen


def test_programs_are_found_on_path_but_not_in_the_visited_folder(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path, named = program(tmp_path / "bin"), program(tmp_path / "named")
    visited = program(tmp_path / "visited")
    monkeypatch.setattr(processes, "_STARTED_IN", visited.parent)
    monkeypatch.setenv("PATH", os.pathsep.join((".", str(visited.parent), str(on_path.parent))))
    found = find_programs(Settings(llama_server=str(named)), paths)
    assert [(each.kind, each.path) for each in found] == [("wheel", None), ("path", on_path), ("setting", named)]
    assert not list(tmp_path.rglob("ran"))


def test_a_program_tells_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "llama-server"
    file.write_text(
        "#!/bin/sh\ncase $1 in\n"
        "--version) echo 'version: 123 (abc)' >&2; echo 'built with cc for x' >&2;;\n"
        "--list-devices) echo 'Available devices:'; echo '  CUDA0: NVIDIA X (10 MiB, 9 MiB free)';;\n"
        "*) echo 'system_info: n = 2 | CUDA : ARCHS = 900 | CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 |'; exit 1;;\n"
        "esac\n"
    )
    file.chmod(0o755)
    facts = ask_program(Program("path", file))
    assert facts == programs.ProgramFacts("123 (abc)", ("CUDA0: NVIDIA X (10 MiB, 9 MiB free)",), ("SSE3", "AVX2"))


def test_instructions_that_the_processor_lacks_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = programs.ProgramFacts(features=("SSE3", "AVX2", "AVX512", "AMX_INT8", "NEW_ONE"))
    monkeypatch.setattr(programs, "processor_flags", lambda: frozenset({"pni", "avx2", "avx512f"}))
    assert facts.lacking == ("AMX_INT8",)
    monkeypatch.setattr(programs, "processor_flags", frozenset)
    assert facts.lacking == ()


def test_a_program_that_says_nothing_is_listed_all_the_same(tmp_path: Path) -> None:
    assert ask_program(Program("path", program(tmp_path))) == programs.ProgramFacts()
    assert ask_program(Program("path", tmp_path / "gone")) == programs.ProgramFacts()
