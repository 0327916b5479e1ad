"""Lines that are not shown to a model."""

from __future__ import annotations

import pytest

from peft_daemon.sources.redaction import redacted

SECRET = [
    'password = "hunter2!x"',
    "API_KEY: str = 'a8Jd92kLmQ0p7ZxT'",
    'config["db_password"] = "s3cr3t-pass"',
    '"access_token": "abc123def456ghi"',
    "url = 'postgres://admin:s3cret@db.example/x'",
    "KEY = 'AKIAIOSFODNN7EXAMPLE'",
    "token = ghp_0123456789abcdefghijABCDEFGHIJ456789",
    "jwt = eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc",
    "-----BEGIN RSA PRIVATE KEY-----",
    "MIIEpAIBAAKCAQEA1234567890abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL",
]
HARMLESS = [
    "password = getpass()",
    'password = "{password}"',
    "def check(token: str, api_key: str | None = None) -> bool:",
    'token = "special"  # a kind of token',
    "url = 'https://example.org/path@v2'",
    "x = compute_something_with_a_very_long_name_that_is_no_key(value)",
    "    return self.secret",
]


@pytest.mark.parametrize("line", SECRET)
def test_a_line_with_a_secret_is_emptied_and_its_neighbours_stay(line: str) -> None:
    assert redacted(f"a = 1\n{line}\nb = 2") == "a = 1\n\nb = 2"


@pytest.mark.parametrize("line", HARMLESS)
def test_ordinary_code_stays(line: str) -> None:
    assert redacted(line) == line
