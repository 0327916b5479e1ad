"""Settings of an editor are used where they are valid, and complained about one by one where they are not."""

from __future__ import annotations

import msgspec
import pytest

from peft_lsp.settings import EditorSettings, read_settings


def test_valid_settings_are_used() -> None:
    raw = {
        "enabled": False,
        "adapter": "mine",
        "maxTokens": 32,
        "timeBudgetMs": 500,
        "disabledLanguages": ["markdown"],
        "delayMs": 300,
        "showAfterMs": 0,
        "feedback": False,
        "completion": "always",
    }
    configuration, complaints = read_settings(raw)
    assert msgspec.to_builtins(configuration) == raw
    assert complaints == []


@pytest.mark.parametrize("raw", [None, {}, [], {"enabled": None, "adapter": None}, {"trace": {"server": "verbose"}}])
def test_missing_null_and_foreign_settings_leave_the_defaults(raw: object) -> None:
    assert read_settings(raw) == (EditorSettings(), [])


def test_a_bad_value_is_named_and_the_others_still_count() -> None:
    configuration, complaints = read_settings({"maxTokens": 0, "adapter": "mine", "enabled": "yes"})
    assert configuration == EditorSettings(adapter="mine")
    assert len(complaints) == 2
    assert "'enabled'" in complaints[0]
    assert "'maxTokens' is 0" in complaints[1]


def test_settings_that_are_no_object_are_refused_whole() -> None:
    configuration, complaints = read_settings(["x"])
    assert configuration == EditorSettings()
    assert "list" in complaints[0]


def test_a_language_is_served_unless_it_or_everything_is_switched_off() -> None:
    assert EditorSettings().serves("python")
    assert not EditorSettings(enabled=False).serves("python")
    assert not EditorSettings(disabled_languages=["python"]).serves("python")


def test_prose_is_not_served_by_any_of_its_names_until_it_is_taken_out_of_the_list() -> None:
    for language in ("markdown", "plaintext", "text", "gfm"):
        assert not EditorSettings().serves(language)
        assert EditorSettings(disabled_languages=["python"]).serves(language)


@pytest.mark.parametrize("value", [True, False, None, "counts", "text", "off"])
def test_what_feedback_may_be_and_was_in_earlier_versions_is_understood(value: object) -> None:
    configuration, complaints = read_settings({"feedback": value})
    assert (configuration.feedback, complaints) == (value, [])
