"""Limits that follow from an engine's speed, and what is remembered of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.settings import Settings
from peft_daemon.engines.base import EngineSpeed
from peft_daemon.engines.limits import (
    LEAST_PROMPT_TOKENS,
    LEAST_STEP_TOKENS,
    MAX_KNOWN_SPEEDS,
    MOST_PROMPT_TOKENS,
    MOST_STEP_TOKENS,
    KnownSpeeds,
    context_tokens,
    looks_ahead,
    prompt_tokens,
    step_tokens,
)

AUTO = Settings()


@pytest.mark.parametrize(
    ("reading", "step", "prompt", "context"),
    [
        (0, 16, 1024, 4096),
        (90, 16, 1024, 4096),
        (900, 80, 1024, 4096),
        (8000, 512, 2048, 4096),
        (20_000, 512, 4096, 6144),
        (100_000, 512, 8192, 10_240),
    ],
)
def test_a_faster_engine_gets_longer_steps_prompts_and_contexts(
    reading: float, step: int, prompt: int, context: int
) -> None:
    speed = EngineSpeed(reading)
    assert step_tokens(AUTO, speed) == step
    assert prompt_tokens(AUTO, speed) == prompt
    assert context_tokens(AUTO, 32_768, speed) == context


def test_what_the_settings_name_stays_and_a_model_has_the_context_that_it_was_trained_for() -> None:
    fixed, fast = Settings(batch_tokens=24, prompt_tokens=700, context_tokens=2048), EngineSpeed(100_000)
    assert (step_tokens(fixed, fast), prompt_tokens(fixed, fast), context_tokens(fixed, 32_768, fast)) == (
        24,
        700,
        2048,
    )
    assert context_tokens(AUTO, 2048, fast) == 2048


@given(st.floats(0, 1e7), st.sampled_from([0, 1024, 2048, 4096, 8192]))
def test_limits_stay_in_their_bounds(reading: float, before: int) -> None:
    speed = EngineSpeed(reading)
    assert LEAST_STEP_TOKENS <= step_tokens(AUTO, speed) <= MOST_STEP_TOKENS
    assert LEAST_PROMPT_TOKENS <= prompt_tokens(AUTO, speed, before) <= MOST_PROMPT_TOKENS


def test_a_prompt_keeps_its_length_while_the_speed_varies_a_little() -> None:
    # A prompt of another length begins elsewhere, so all of it would have to be read again.
    limit = prompt_tokens(AUTO, EngineSpeed(7000))
    for reading in (6700, 7400, 6600, 8000, 6500):
        limit = prompt_tokens(AUTO, EngineSpeed(reading), limit)
        assert limit == 2048
    assert prompt_tokens(AUTO, EngineSpeed(5000), limit) == 1024
    assert prompt_tokens(AUTO, EngineSpeed(18_000), limit) == 4096


@pytest.mark.parametrize(("writing", "ahead"), [(0, True), (20, True), (2.5, True), (1.5, False)])
def test_the_next_suggestion_is_prepared_where_it_can_be_ready(writing: float, ahead: bool) -> None:
    assert looks_ahead(AUTO, EngineSpeed(80, writing)) is ahead
    assert looks_ahead(Settings(look_ahead=False), EngineSpeed(80, writing)) is False


def test_speeds_are_remembered_by_engine_and_model(tmp_path: Path) -> None:
    file = tmp_path / "state/speeds.json"
    speeds = KnownSpeeds(file)
    assert speeds.get("one") == EngineSpeed()
    speeds.put("one", EngineSpeed(80, 20))
    speeds.put("other", EngineSpeed(900, 90))
    assert KnownSpeeds(file).get("one") == EngineSpeed(80, 20)
    for n in range(MAX_KNOWN_SPEEDS - 1):
        speeds.put(str(n), EngineSpeed(n, n))
    assert speeds.get("one") == EngineSpeed()
    assert speeds.get("other") == EngineSpeed(900, 90)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"one": 3}', b"\xff", b'{"one": {"reading": "fast"}}', b"[" * 100_000])
def test_a_damaged_file_is_measured_anew(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "speeds.json"
    file.write_bytes(damage)
    file.chmod(0o600)
    speeds = KnownSpeeds(file)
    assert speeds.get("one") == EngineSpeed()
    speeds.put("one", EngineSpeed(80, 20))
    assert speeds.get("one") == EngineSpeed(80, 20)


def test_a_folder_that_takes_no_file_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").write_text("a file")
    KnownSpeeds(tmp_path / "state/speeds.json").put("one", EngineSpeed(80, 20))
    assert "could not be kept" in caplog.text
