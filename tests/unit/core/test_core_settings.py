"""Settings: one order of sources, every value checked where it comes from, little power for a project's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_core.errors import InvalidInput
from peft_core.settings import PROJECT_SETTINGS, Settings, describe, find_project_file, resolve


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_sources_override_each_other_in_the_documented_order(tmp_path: Path) -> None:
    user = write(tmp_path / "config.toml", "max_tokens_fill = 1\nmax_tokens_intent = 1\nthreads = 1\nslots = 1\n")
    project = write(tmp_path / ".peft-daemon.toml", "max_tokens_fill = 2\nmax_tokens_intent = 2\n")
    resolved = resolve(
        command_line={"max_tokens_fill": 4, "threads": None},
        environ={"PEFT_DAEMON_MAX_TOKENS_FILL": "3", "PEFT_DAEMON_THREADS": "3"},
        project_file=project,
        user_file=user,
    )
    s = resolved.settings
    assert (s.max_tokens_fill, s.threads, s.max_tokens_intent, s.slots) == (4, 3, 2, 1)
    assert [resolved.sources[k] for k in ("max_tokens_fill", "threads", "max_tokens_intent", "slots", "port")] == [
        "command line",
        "environment",
        "project file",
        "user file",
        "default",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("threads = -1", "'threads'"),
        ("threads = 99999999999999999999", "'threads'"),
        ('threads = "2"', "'threads'"),
        ('listen = "everywhere"', "'listen'"),
        ("unheard_of = 1", "unheard_of"),
        ("threads = ", "cannot read"),
        ("\x00", "cannot read"),
    ],
)
def test_a_bad_user_file_is_named_with_the_key_and_the_fix(tmp_path: Path, text: str, says: str) -> None:
    user = write(tmp_path / "config.toml", text)
    with pytest.raises(InvalidInput, match=says) as caught:
        resolve(environ={}, user_file=user)
    assert str(user) in caught.value.line
    assert caught.value.fix


@pytest.mark.parametrize("content", [b"model = '\xff'", b"model = " + b"[" * 10_000, b"model"])
def test_a_file_that_cannot_be_read_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="cannot read"):
        resolve(environ={}, user_file=path)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("true", "counts"), ("false", "off"), ('"text"', "text"), ('"counts"', "counts"), ('"off"', "off")],
)
def test_yes_of_an_earlier_version_is_no_consent_to_text(tmp_path: Path, text: str, meant: str) -> None:
    user = write(tmp_path / "config.toml", f"feedback = {text}\n")
    assert resolve(environ={}, user_file=user).settings.feedback == meant
    assert resolve(environ={"PEFT_DAEMON_FEEDBACK": text.strip('"')}).settings.feedback == meant


@pytest.mark.parametrize("text", ["1.5", '"yes"', "[true]"])
def test_another_value_for_feedback_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput, match="feedback"):
        resolve(environ={}, user_file=write(tmp_path / "config.toml", f"feedback = {text}\n"))


def test_a_repository_cannot_consent_to_text_for_the_user(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="may not set 'feedback'"):
        resolve(environ={}, project_file=write(tmp_path / ".peft-daemon.toml", 'feedback = "text"\n'))


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbfslots = 3")
    assert resolve(environ={}, user_file=path).settings.slots == 3


@pytest.mark.parametrize("name", sorted(set(Settings.__struct_fields__) - PROJECT_SETTINGS))
def test_a_repository_cannot_set_what_opens_a_port_or_starts_something(tmp_path: Path, name: str) -> None:
    default = getattr(Settings(), name)
    value = f'"{default}"' if isinstance(default, str) else str(default).lower()
    project = write(tmp_path / ".peft-daemon.toml", f"{name} = {value}")
    with pytest.raises(InvalidInput, match="may not set"):
        resolve(environ={}, project_file=project)


def test_the_tuning_rules_of_a_repository_are_left_to_tuning(tmp_path: Path) -> None:
    project = write(tmp_path / ".peft-daemon.toml", 'max_tokens_fill = 32\n[tune]\nignore = ["a/"]')
    assert resolve(environ={}, project_file=project).settings == Settings(max_tokens_fill=32)


def test_the_nearest_project_file_counts(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert find_project_file(inner) is None or tmp_path not in find_project_file(inner).parents  # type: ignore[union-attr]
    outer_file = write(tmp_path / ".peft-daemon.toml", "")
    assert find_project_file(inner) == outer_file
    inner_file = write(tmp_path / "a" / ".peft-daemon.toml", "")
    assert find_project_file(inner) == inner_file


def test_every_setting_is_described_and_changes_the_digest() -> None:
    for name in Settings.__struct_fields__:
        assert describe(name), name
    assert Settings().digest() == Settings().digest() != Settings(slots=2).digest()
