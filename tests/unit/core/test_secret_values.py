"""Values that look like secrets are masked, ordinary code is not, and masking disturbs nothing around it."""

from __future__ import annotations

import string
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_core.privacy.values import MASK, masked, masked_parts, secret_values

ALNUM = string.ascii_letters + string.digits
UPPER = string.ascii_uppercase + string.digits
LOWER_HEX = "0123456789abcdef"
URL_SAFE = ALNUM + "-_"


def run(alphabet: str, least: int, most: int | None = None) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=least, max_size=most or least + 20)


def after(prefix: str, alphabet: str, least: int, most: int | None = None) -> st.SearchStrategy[str]:
    return run(alphabet, least, most).map(lambda rest: prefix + rest)


def with_digit(prefix: str, least: int) -> st.SearchStrategy[str]:
    return st.tuples(run(ALNUM, least), st.sampled_from(string.digits)).map(lambda two: prefix + two[0] + two[1])


# Prefixes in two pieces, so that nobody takes this file for one that holds secrets.
TOKENS = {
    "AWS": after("AK" + "IA", UPPER, 16, 16),
    "GitHub": after("gh" + "p_", ALNUM, 36),
    "GitHub, fine-grained": after("github" + "_pat_", ALNUM + "_", 22),
    "GitLab": after("gl" + "pat-", URL_SAFE, 20),
    "Slack": after("xox" + "b-", URL_SAFE, 12),
    "Stripe": after("sk" + "_live_", ALNUM, 16),
    "OpenAI": with_digit("sk" + "-", 20),
    "Hugging Face": after("hf" + "_", ALNUM, 30),
    "PyPI": with_digit("pypi" + "-", 24),
    "npm": after("npm" + "_", ALNUM, 36),
    "Google": after("AI" + "za", URL_SAFE, 35),
    "JWT": st.tuples(run(ALNUM, 12), run(ALNUM, 12), run(ALNUM, 12)).map(lambda parts: "eyJ" + ".".join(parts)),
    "SendGrid": st.tuples(run(URL_SAFE, 20), run(URL_SAFE, 30)).map(lambda parts: "SG." + ".".join(parts)),
    "DigitalOcean": after("dop" + "_v1_", LOWER_HEX, 64, 64),
    "Databricks": after("da" + "pi", LOWER_HEX, 32, 32),
    "Vault": after("hv" + "s.", URL_SAFE, 24),
}
LINES = [
    *(
        'x = "{}"',
        "{}",
        "key: {}",
        "# {}",
        "f({!r}, 1)",
        "curl -H 'X-Key: {}' u",
        "<a>{}</a>",
        "export K={}",
        "a={};b=1",
    ),
]
PASSWORD_LINES = [
    *('password = "{}"', "config['db_password'] = '{}'", '"password": "{}",', "dbPassword: '{}',", 'f(password="{}")'),
    *(
        "DB_PASSWORD={}",
        "export SMTP_PASSWORD={}",
        "  password: {}",
        "db.password={}",
        "password={} # x",
        "<password>{}</password>",
        "x --password {}",
    ),
    *(
        "'postgres://me:{}@db/x'",
        'password := "{}"',
        "'password' => '{}'",
        'const PWD: string = "{}";',
        'password = "{}',
    ),
    *('os.environ["ADMIN_PASSWORD"] = "{}"', '<add key="password" value="{}"/>', '"Server=x;Password={};"'),
]


@settings(max_examples=400)
@given(token=st.one_of(*TOKENS.values()), line=st.sampled_from(LINES))
def test_no_token_of_a_known_issuer_survives(token: str, line: str) -> None:
    text = masked(f"a = 1\n{line.format(token)}\nb = 2")
    assert token not in text
    assert (text.split("\n")[0], text.split("\n")[2]) == ("a = 1", "b = 2")
    assert MASK in text


@settings(max_examples=300)
@given(line=st.sampled_from(PASSWORD_LINES), word=run(string.ascii_letters, 5, 12), number=st.integers(0, 9999))
def test_no_password_with_letters_and_digits_survives_its_name(line: str, word: str, number: int) -> None:
    # Words such as "example" and "change me" are what a template has there.
    password = f"q{word}{number}"
    assert password not in masked(line.format(password))


@pytest.mark.parametrize("line", ['{} = "{}"', "{}: '{}',", "{}={}", "  {}: {}", 'x["{}"] = "{}"', '{}: str = "{}"'])
@pytest.mark.parametrize("name", ["SECRET_KEY", "api_key", "accessToken", "client-secret", "auth_token", "signing_key"])
def test_no_random_value_survives_the_name_of_a_key(name: str, line: str) -> None:
    for number in range(20):
        value = sha256(f"{name}{number}".encode()).hexdigest()[: 20 + number]
        assert value not in masked(line.format(name, value))


@settings(max_examples=100)
@given(
    body=st.lists(run(ALNUM + "+/", 64, 64), min_size=1, max_size=4),
    last=run(ALNUM + "+/", 3, 60),
    kind=st.sampled_from(["RSA PRIVATE KEY", "PRIVATE KEY", "OPENSSH PRIVATE KEY", "EC PRIVATE KEY"]),
    shape=st.sampled_from(["{}\n", '    "{}\\n"\n', "# {}\n"]),
)
def test_no_line_of_a_private_key_survives(shape: str, kind: str, body: list[str], last: str) -> None:
    body = [f"Aa1{line[3:]}" for line in body]
    lines = [f"-----BEGIN {kind}-----", *body, last, f"-----END {kind}-----"]
    text = "x = 1\n" + "".join(shape.format(line) for line in lines) + "y = 2\n"
    hidden = masked(text)
    assert not [line for line in (*body, last) if len(line) > 12 and line in hidden]
    assert hidden.count("\n") == text.count("\n")
    assert hidden.startswith("x = 1\n")
    assert hidden.endswith("y = 2\n")


def test_a_private_key_on_one_line_does_not_survive() -> None:
    key = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC"
    text = f'"private_key": "-----BEGIN PRIVATE KEY-----\\n{key}\\n-----END PRIVATE KEY-----\\n",'
    assert key not in masked(text)


TEXTS = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.sampled_from([*LINES, *PASSWORD_LINES]).flatmap(
            lambda line: st.one_of(*TOKENS.values(), run(ALNUM + "!@#-_.:/<>\"'", 5)).map(
                line.replace("{!r}", "{}").format
            )
        ),
        st.just(f"token = {MASK}"),
    ),
    max_size=6,
).map("\n".join)


@given(text=TEXTS)
def test_masking_twice_is_masking_once(text: str) -> None:
    assert masked(masked(text)) == masked(text)


@given(text=TEXTS)
def test_values_lie_within_lines_in_order_and_apart(text: str) -> None:
    at = 0
    for start, end in secret_values(text):
        assert at <= start < end
        assert "\n" not in text[start:end]
        at = end


@given(above=TEXTS, line=TEXTS, below=TEXTS)
def test_what_is_typed_in_one_line_changes_the_mask_of_no_other(above: str, line: str, below: str) -> None:
    if "-----" in above + line + below:
        return
    around = masked(above + "\n"), masked("\n" + below)
    for typed in ("", line.replace("\n", " ")):
        text = masked(f"{above}\n{typed}\n{below}")
        assert text.startswith(around[0])
        assert text.endswith(around[1])


@given(text=TEXTS, cuts=st.tuples(st.integers(0, 200), st.integers(0, 200)))
def test_parts_of_a_text_show_no_more_than_the_whole(text: str, cuts: tuple[int, int]) -> None:
    first, second = sorted(min(cut, len(text)) for cut in cuts)
    parts = masked_parts(text[:first], text[first:second], text[second:])
    assert "".join(parts).replace(MASK, "") == masked(text).replace(MASK, "")


def test_a_token_with_dots_is_no_name() -> None:
    token = f"MT{ALNUM[40:58]}x1Q4.Cl2FMQ.Znc{ALNUM[:20]}7"
    assert token not in masked(f'"token": "{token}"')
    assert masked('"token": "app.v2.tokens.invalid"') == '"token": "app.v2.tokens.invalid"'


HARMLESS = [
    *("password = getpass()", 'password = "{password}"', "def check(token: str, api_key: str | None = None) -> bool:"),
    *('token = "special"  # a kind of token', "url = 'https://example.org/path@v2'", "    return self.secret"),
    *(
        "x = compute_something_with_a_very_long_name_that_is_no_key(value)",
        "token = next_token1",
        "token=next1;",
        "token: uint64",
    ),
    *("  secret: Secp256k1SecretKey", "password: bytes32", "TOKEN_URL = 'https://a.b/c1'", "PASSWORD=$DB_PASS1"),
    *('tokenizer = "Qwen2.5-Coder-0.5B"', "max_tokens: 4096", "password: Optional[str] = None", "key = 'user_v2'"),
    *('"password": "Password must have 8 characters"', 'sha = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0ba8c6f"'),
    *("'postgres://user:password@localhost/x'", "password = os.environ['PASSWORD1']", "const token = await next(1);"),
    *('"api_key": "your-api-key-1"', "password=self.password1,", "key = lambda x1: x1", "--tokenizer gpt2"),
    *("class='sk-fading-circle'", "task-asiatic-1", 'public_key = "04abcdef0123456789abcdef01234567"'),
    *(
        '"password-validator": "^5.3.0",',
        "PASSWORD_HASH_ALGORITHM = 'pbkdf2_sha256'",
        "tokenSigningAlgorithm: 'HS256-JWT'",
    ),
    *(
        "ACCESS_TOKEN_COOKIE_NAME = 'access_v2'",
        "PASSWORD_RESET_FROM = 'noreply@example.com'",
        'tokenColor: "#1e1e1e11"',
    ),
    *(
        "'password' => 'required|min:8|confirmed',",
        'token: "T_STRING_1"',
        'api_key = "test-api-key-1"',
        "div.sk-cube1-grid-2",
    ),
    *(
        'token = "0x' + "6B175474" * 5 + '"',
        'SEPARATOR_TOKEN = "\\U000f0000"',
        '"key": "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRk"',
    ),
    f'    "{ALNUM}+/"',
]


@pytest.mark.parametrize("line", HARMLESS)
def test_ordinary_code_stays(line: str) -> None:
    assert masked(line) == line


def test_whole_files_of_ordinary_code_stay() -> None:
    root = Path(__file__).parents[3]
    files = [*(root / "daemon/peft_daemon/adapters").glob("*.py"), *(root / "daemon/peft_daemon/engines").glob("*.py")]
    files += [*(root / "vscode-client/src/server").glob("*.ts"), root / "pyproject.toml", root / "Makefile"]
    assert len(files) > 20
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert masked(text) == text, file


def test_a_capital_letter_with_a_longer_small_one_moves_nothing() -> None:
    assert masked('İİİ\npassword = "hunter2x"') == f'İİİ\npassword = "{MASK}"'


def test_a_line_without_end_is_looked_at_around_its_hints() -> None:
    text = "x" * 50_000 + ' password = "hunter2x" ' + "y" * 50_000
    assert masked(text) == text.replace("hunter2x", MASK)
