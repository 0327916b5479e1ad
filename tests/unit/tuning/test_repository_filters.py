"""Filters of a repository's code: lines with secrets, and files or functions that are there twice.

The keys here are put together while the test runs, so that no scanner trips over them.
"""

from __future__ import annotations

import random
import string

import pytest

from peft_tuning.data.repository.filters import (
    detectors,
    file_index,
    file_parts,
    function_index,
    function_parts,
    without_secrets,
)
from support.own_repository import module

LETTERS = string.ascii_letters + string.digits


def noise(length: int, alphabet: str = LETTERS) -> str:
    return "".join(random.Random(length).choices(alphabet, k=length))


def cleaned(text: str, path: str = "a.py") -> str:
    with detectors() as plugins:
        return without_secrets(text, path, plugins).text


SECRETS = {
    "aws": "AWS_ID = '" + "AKI" + "A" + noise(16, string.ascii_uppercase + string.digits) + "'",
    "github": "token='" + "gh" + "p_" + noise(36) + "'",
    "slack": "url('" + "xox" + "b-" + noise(11, string.digits) + "-" + noise(24) + "')",
    "stripe": "k = '" + "sk_" + "live_" + noise(24) + "'",
    "password": "pass" + "word = '" + noise(9) + "'",
    "base64": "blob = '" + noise(44) + "'",
    "hex": "digest = '" + noise(40, "0123456789abcdef") + "'",
    "url": "url = 'https://me:" + noise(10) + "@example.com/'",
    "jwt": "j = '" + "ey" + "J0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9" + ".eyJhIjoxfQ." + noise(43) + "'",
}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_line_with_a_secret_is_emptied_and_no_other(kind: str) -> None:
    text = f"import os\n{SECRETS[kind]}\nx = 1\n"
    assert cleaned(text) == "import os\n\nx = 1\n"


@pytest.mark.parametrize(
    "line",
    ["DB_{}={}9x", "  {}: {}9x", '{} := "{}9x"', "<{}>{}9x</{}>", "run --{} {}9x", 'const {}: string = "{}9x";'],
)
def test_no_answer_is_learned_that_no_suggestion_may_write(line: str) -> None:
    name = "pass" + "word"
    assert cleaned(f"a\n{line.format(name, noise(8), name)}\nb\n") == "a\n\nb\n"


def test_a_private_key_goes_with_all_its_lines() -> None:
    body = "\n".join(noise(64 - n) for n in range(5))
    head, foot = "-----" + "BEGIN RSA PRIVATE " + "KEY-----", "-----" + "END RSA PRIVATE " + "KEY-----"
    text = f'KEY = """\n{head}\n{body}\n{foot}\n"""\nx = 1\n'
    kept = cleaned(text)
    assert not any(line in kept for line in (head, *body.split("\n")))
    assert kept.count("\n") == text.count("\n")
    assert kept.endswith('"""\nx = 1\n')


@pytest.mark.parametrize(
    "line",
    [
        "password = os.environ['PASSWORD']",
        "def check(password: str, token: str = '') -> None:",
        "x = 'https://example.com/a/very/long/path/to/some/document.html'",
        "id = '123e4567-e89b-12d3-a456-426614174000'",
        "return secrets.token_hex(16)",
    ],
)
def test_ordinary_code_stays(line: str) -> None:
    assert cleaned(f"{line}\n") == f"{line}\n"


def test_what_the_author_allowed_stays() -> None:
    for line in (SECRETS["hex"], "SMTP_PASS" + "WORD=" + noise(9)):
        text = line + "  # pragma: " + "allowlist secret\n"
        assert cleaned(text) == text


def test_the_line_numbers_say_what_is_missing() -> None:
    with detectors() as plugins:
        found = without_secrets(f"a\n\n{SECRETS['aws']}\n{SECRETS['hex']}\n", "a.py", plugins)
    assert found.lines == {2, 3}


def test_the_settings_of_the_library_are_as_before() -> None:
    from detect_secrets.settings import get_settings

    before = get_settings().json()
    cleaned("x = 1\n")
    assert get_settings().json() == before


def functions(*codes: str) -> list[bool]:
    seen = function_index()
    return [seen.seen_before(function_parts(code)) for code in codes]


CODE = """def total(rows, rate):
    result = 0
    for row in rows:
        if row.kind == "sum" and row.value > 0:
            result += row.value * rate
        elif row.kind == "fee":
            result -= min(row.value, rate) / len(rows)
    log.info("total of %d rows is %s", len(rows), result)
    return round(result, 2)
"""


def test_layout_and_comments_make_no_difference() -> None:
    other = (
        CODE.replace("    ", "\t").replace("result = 0", "result = 0  # so far").replace("(rows, rate)", "(rows,rate)")
    )
    assert functions(CODE, other) == [False, True]


def test_a_renamed_copy_is_the_same() -> None:
    assert functions(CODE, CODE.replace("total(", "amount(").replace("log.info", "log.debug")) == [False, True]


def test_other_functions_are_not() -> None:
    assert functions(CODE, module(1), module(2), "def total(rows, rate):\n    return rows[rate]\n") == [False] * 4


def test_a_short_function_must_be_the_same_in_every_token() -> None:
    one = "def name(self):\n    return self._name\n"
    assert functions(one, one.replace("_name", "_title"), one) == [False, False, True]


def test_a_file_with_one_line_changed_is_the_same_file() -> None:
    seen = file_index()
    text = module(4)
    assert [
        seen.seen_before(file_parts(each)) for each in (text, text.replace("break", "continue"), module(5), text)
    ] == [False, True, False, True]  # fmt: skip


def test_similarity_is_measured_against_originals_only() -> None:
    # Ten small steps lead away from the first; none may be judged by its neighbour alone.
    lines = [f"value_{n} = compute({n})" for n in range(40)]
    seen = file_index()
    kept = []
    for step in range(0, 40, 4):
        text = "\n".join(lines[step:] + [f"other_{n} = {n}" for n in range(step)])
        kept.append(not seen.seen_before(file_parts(text)))
    assert kept[0]
    assert sum(kept) >= 3
