"""Values in a text that look like secrets: keys, tokens, passwords.

The tables below say what is looked for. Each value lies within one line and, except for the short last line of a
private key, is found by its own line alone, so that typing in one line never changes what is found in others.
``masked`` replaces values before a model reads them. It runs at every key, so it must be fast: a few tenths of a
millisecond for 8,000 characters. Tuning, whose adapters keep what they learned, searches more thoroughly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import log2

MASK = "<redacted>"
"""Replaces a secret value. No pattern matches it, so masking twice changes nothing."""

MAX_WHOLE_LINE_CHARS = 2_000
"""A longer line is searched only around hints."""
CHARS_BEFORE_HINT = 200
MIN_LINE_CHARS = 8
"""A shorter line has no room for a name and a value."""
MIN_KEY_LINE_CHARS = 60
"""Shortest line of a private key, except for its last."""

ValueSpan = tuple[int, int]
"""Start and end of a value in a text."""


@dataclass(frozen=True, eq=False)
class _ValueKind:
    """One kind of secret value."""

    hints: tuple[str, ...]
    """Lower-case words; a line without any of them is not searched."""
    pattern: re.Pattern[str]
    """Matches the value, in the group ``value`` if there is one."""
    judge: Callable[[re.Match[str]], bool] = bool
    """Whether a match is a secret."""
    always_mixed: bool = False
    """Whether all its values contain a digit or a sign."""


def _token(hints: str, pattern: str) -> _ValueKind:
    return _ValueKind(tuple(hints.split()), re.compile(rf"(?<![A-Za-z0-9]){pattern}", re.ASCII))


_TOKENS = (
    _token("akia asia abia acca", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
    _token("ghp_ gho_ ghu_ ghs_ ghr_", r"gh[pousr]_[A-Za-z0-9]{20,}"),
    _token("github_pat_", r"github_pat_\w{20,}"),
    _token("glpat- gldt- glrt- glcbt- glptt-", r"gl(?:pat|dt|rt|cbt|ptt)-[\w-]{16,}"),
    _token("xox xapp-", r"(?:xox[abeoprs]|xapp)-[\w-]{10,}"),
    _token("hooks.slack.com", r"hooks\.slack\.com/(?:services|workflows)/[\w/-]{20,}"),
    _token("/webhooks/", r"discord(?:app)?\.com/api/webhooks/\d+/[\w-]{20,}"),
    _token("sk_live_ sk_test_ rk_live_ rk_test_", r"[sr]k_(?:live|test)_\w{10,}"),
    _token("sk-", r"sk-(?=[\w-]*\d)(?=[\w-]*[A-Za-z0-9]{12})[\w-]{16,}"),
    _token("gsk_ r8_ xai- pplx-", r"(?:gsk_|r8_|xai-|pplx-)(?=\w*\d)\w{20,}"),
    _token("hf_", r"hf_[A-Za-z0-9]{20,}"),
    _token("pypi-", r"pypi-(?=[\w-]*\d)[\w-]{20,}"),
    _token("npm_", r"npm_[A-Za-z0-9]{30,}"),
    _token("aiza", r"AIza[\w-]{30,}"),
    _token("ya29. gocspx-", r"(?:ya29\.|GOCSPX-)[\w-]{20,}"),
    _token("eyj", r"eyJ[\w-]{10,}\.[\w-]{6,}(?:\.[\w-]*)?"),
    _token("sg.", r"SG\.[\w-]{16,}\.[\w-]{16,}"),
    _token("accountkey= accesskey=", r"(?:Account|SharedAccess)Key=(?P<value>[\w+/=]{20,})"),
    _token("dop_v1_ doo_v1_ dor_v1_", r"do[opr]_v1_[a-f0-9]{40,}"),
    _token("shpat_ shpca_ shppa_ shpss_", r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32,}"),
    _token("dapi", r"dapi[a-f0-9]{32,}"),
    _token("hvs. hvb.", r"hv[sb]\.[\w-]{20,}"),
    _token("lin_api_", r"lin_api_\w{20,}"),
    _token("age-secret-key-", r"AGE-SECRET-KEY-1[A-Z0-9]{40,}"),
    _token(":aa", r"\d{8,10}:AA[\w-]{30,}"),
)
"""Tokens that are recognized by their beginning, as their issuers document it."""

_LOGIN_WORDS = r"passw(?:or)?d|passphrase|pwd"
_ACCESS_WORDS = r"secret|token|credential|(?:api|access|auth|private|client|account|master|signing|encryption)[_-]?key"
_NAME_HINTS = ("passw", "passphrase", "pwd", "secret", "token", "credential", "key")
_NAME = rf"(?P<name>[\w.-]{{0,60}}(?:{_LOGIN_WORDS}|{_ACCESS_WORDS}|key)[\w-]{{0,40}})"
_IS = r"""(?P<is>\s*:\s*[\w\[\]|., ]{1,40}?=|\s*(?:=>|:=|==|[=:,]|\s["']?value["']?\s*=))"""
"""What stands between a name and its value: a type and ``=``, one of several signs, or an attribute's name."""
_LAST_KEYWORD = re.compile(rf".*(?:{_LOGIN_WORDS}|{_ACCESS_WORDS}|key)", re.IGNORECASE)
_ABOUT_A_SECRET = re.compile(
    r"""iz\w+$|s$|s[-_.]|(?:.*[-_.])?(?:ur[li]s?|names?|fields?|headers?|paths?|files?|filename|dir|types?
    |params?|prefix|suffix|len|length|count|max|min|limit|size|regex|pattern|format|label|title|text|hint|help|errors?|messages?|msg
    |placeholder|policy|rules?|expir\w*|ttl|scheme|algorithm|algo?|address|colou?r|symbol|version|env|var|column|attr
    |class|ids?|provider|store|source|endpoint|kind|mode|style|index|usage|scopes?|template|schema|required|enabled|event|action|words?)$""",
    re.IGNORECASE | re.VERBOSE,
)
"""The rest of a name that is about a secret but holds none: ``token_url``, ``token_cookie_name``, ``passwords``."""
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NO_LITERAL = re.compile(
    r"""\$[A-Za-z_({]|%[A-Za-z_({]|your|change.?me|replace|insert|enter|example|dummy|placeholder|todo|x{3,}|[*.…]{3,}
    |(?:none|null|nil|true|false|undefined)$|process\.|os\.|env\.|[.~]?/|\w+://|.*[{}\s<>]|.*\[.*\]|.*\(.*\)
    |.*\\[dwsb]|\\[ux]
    |[~^]?v?\d+(?:\.\d+)+(?:-[\w.]+)?$|\#(?:[0-9a-f]{3,4}){1,2}$|0x[0-9a-f]{40}$|sha(?:1|256|384|512)-
    |[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}$|(?:required|nullable|sometimes)\|
    |(?-i:[A-Z]+(?:_[A-Z]+)+(?:_\d{1,3})?$)
    |(?:test|mock|fake|sample|demo|stub|invalid|wrong|expired)(?:[-_][a-z]+)+(?:[-_]?\d{1,4})?$""",
    re.IGNORECASE | re.VERBOSE,
)
"""Values that are no secrets: placeholders, test values, expressions, addresses, paths, versions, colors, names."""
_MEMBER = re.compile(r"[A-Za-z_]\w*(?:(?:\.|::|->)[A-Za-z_]\w*)+$")
"""Names joined by dots or arrows, such as a module or a key of a translation; random letters are excluded later."""
_COMMON = frozenset(
    ("password", "passwd", "pass", "pwd", "secret", "token", "postgres", "root", "admin", "guest", "user", "test")
)
_TYPE = re.compile(r"(?:u?int|float|bytes|string|str|char|[fiu])\d+$|[A-Z]\w*[a-z]\w*$")


def _entropy(text: str) -> float:
    return -sum(count / len(text) * log2(count / len(text)) for count in Counter(text).values())


def _is_random(value: str) -> bool:
    """Whether a value has a long run of random letters and digits."""
    for run in re.findall(r"[A-Za-z0-9+/]{16,}", value):
        digits = sum(map(str.isdigit, run))
        if 2 <= digits < len(run) and _entropy(run) > 2.8:
            return True
    return False


def _is_mixed(value: str) -> bool:
    """Whether a value has letters and digits, or a sign that words do not have."""
    has_letters, has_digits = any(map(str.isalpha, value)), any(map(str.isdigit, value))
    return (has_letters and has_digits) or any(sign in "!@#^&*+~%?" for sign in value)


def _names_password(name: str) -> bool:
    return re.search(_LOGIN_WORDS, name, re.IGNORECASE) is not None


def _is_no_value(value: str) -> bool:
    """Whether a literal is no secret, even if its name suggests one."""
    is_member = _MEMBER.match(value) is not None and not _is_random(value)
    return is_member or _NO_LITERAL.match(value) is not None or value.lower() in _COMMON


def _holds(name: str, value: str) -> bool:
    """Whether a literal is a secret, judged by its name and its value."""
    if _is_no_value(value) or "public" in name.lower():
        return False
    if _ABOUT_A_SECRET.match(_HUMP.sub("_", _LAST_KEYWORD.sub("", name, count=1))):
        return False
    if _names_password(name):
        return len(value) >= 5 and _is_mixed(value)
    if re.search(_ACCESS_WORDS, name, re.IGNORECASE):
        return len(value) >= 8 and _is_mixed(value)
    return _is_random(value)


def _named(match: re.Match[str]) -> bool:
    return _holds(match["name"], match["value"])


def _quoted(match: re.Match[str]) -> bool:
    # A comma may also separate two words of a list.
    return _named(match) and (match["is"].strip() != "," or _is_random(match["value"]))


def _configured(match: re.Match[str]) -> bool:
    """Whether the rest of a line is a secret, as in a configuration file, and not an expression of a program."""
    name, sign, value = match["name"], match["sign"].strip(), match["value"]
    if not _holds(name, value) or _TYPE.match(value):
        return False
    # In programs there are spaces around the sign, or the line is indented.
    if _is_random(value) or (match["sign"] == "=" and (name.isupper() or not match[0][0].isspace())):
        return True
    if value[0] in "!&*@|~+-":
        return False
    return _names_password(name) and (sign == ":" or any(each in "!@#^~" for each in value))


def _is_no_common_word(match: re.Match[str]) -> bool:
    return not _is_no_value(match["value"])


def _is_mixed_value(match: re.Match[str]) -> bool:
    return _is_mixed(match["value"]) and not _is_no_value(match["value"])


def _has_random_value(match: re.Match[str]) -> bool:
    return _is_random(match["value"])


_FLAGS = re.IGNORECASE | re.ASCII | re.MULTILINE
_NAMED = (
    _ValueKind(
        _NAME_HINTS,
        re.compile(
            rf"""(?<![\w.-]){_NAME}["'\])]*{_IS}\s*[a-z]{{0,2}}(?P<quote>["'`])"""
            r"(?P<value>(?:\\.|(?!(?P=quote))[^\\\n])*)(?:(?P=quote)|$)",
            _FLAGS,
        ),
        _quoted,
        always_mixed=True,
    ),
    _ValueKind(
        _NAME_HINTS,
        re.compile(
            rf"^\s*(?:(?:export|set|setenv|env|arg|-)\s+)*{_NAME}(?P<sign>[ \t]*=[ \t]*|[ \t]*:[ \t]+|[ \t]+)"
            r"""(?P<value>[^\s"'`<>,;(){}\[\]=]+={0,2})(?:[ \t]+[#;].*)?[ \t]*$""",
            _FLAGS,
        ),
        _configured,
        always_mixed=True,
    ),
    _ValueKind(_NAME_HINTS, re.compile(rf"<{_NAME}>(?P<value>[^<>\s]+)<", _FLAGS), _named, always_mixed=True),
    _ValueKind(
        _NAME_HINTS,
        re.compile(rf"""(?<![\w-])--?{_NAME}[= ](?P<value>[^\s"'`<>]+)""", _FLAGS),
        _named,
        always_mixed=True,
    ),
    _ValueKind(
        ("passw", "pwd"),
        re.compile(r"""["';]\s*(?:[\w ]{1,20} )?(?:password|pwd)\s*=\s*(?P<value>[^;"'\s<>]{4,})(?=[;"'])""", _FLAGS),
        _is_mixed_value,
    ),
    _ValueKind(
        ("://",),
        re.compile(r"""://[^\s/:@"'`<>]{0,64}:(?P<value>[^\s/@"'`<>{}]{3,})@"""),
        _is_no_common_word,
    ),
    _ValueKind(
        ("bearer ", "basic "), re.compile(r"\b(?:Bearer|Basic) +(?P<value>[\w.~+/=-]{16,})", _FLAGS), _has_random_value
    ),
)
"""Values that are secrets because of their name, or of the text around them."""

_KEY_AFTER_HEAD = _ValueKind(
    ("private key",),
    re.compile(r"""PRIVATE KEY(?: BLOCK)?-----(?:\\[nr])*(?P<value>[^"'`<]{4,}?)(?=-----END|["'`<]|$)"""),
    lambda match: match["value"].strip() != "",
)
"""The text after the head of a private key on the same line."""

_KINDS = (*_TOKENS, *_NAMED, _KEY_AFTER_HEAD)
_BY_HINT: Mapping[str, tuple[_ValueKind, ...]] = {
    hint: tuple(kind for kind in _KINDS if any(each in hint for each in kind.hints))
    for one in _KINDS
    for hint in one.hints
}
_HINT = re.compile("|".join(map(re.escape, sorted(_BY_HINT, key=len, reverse=True))))
_SIGN_OR_DIGIT = re.compile(r"[0-9!@#^&*+~%?]")

_KEY_RUN = re.compile(r"[A-Za-z0-9+/]{60}")
_KEY_LINE = re.compile(
    # A line of base64, maybe in quotes or a comment. It has digits, small and capital letters; hashes and words do not.
    r"""[^\w\n]*(?P<value>(?=[^\n]*\d)(?=[^\n]*[a-z])(?=[^\n]*[A-Z])"""
    # But an alphabet of all characters has them too.
    r"""(?![^\n]*(?:abcdefgh|ABCDEFGH))[A-Za-z0-9+/]{60,}={0,2})(?:\\[nr])*[^\w\n]*$""",
    re.MULTILINE | re.ASCII,
)
_KEY_LAST_LINE = re.compile(
    r"^[^\w\n]*(?P<value>[A-Za-z0-9+/]+={0,2})(?:\\[nr])*[^\w\n]*(?=\n[^\w\n]*-----END[ ][A-Z0-9 ]*PRIVATE[ ]KEY)",
    re.MULTILINE | re.ASCII,
)


def secret_values(text: str) -> list[ValueSpan]:
    """Return the spans of all values, in order; they do not overlap, and none contains a line end."""
    found: list[ValueSpan] = []
    at = 0
    for line in text.split("\n"):
        if len(line) >= MIN_LINE_CHARS:
            values = _in_line(line) if len(line) <= MAX_WHOLE_LINE_CHARS else tuple(_found_in(line))
            found += [(at + start, at + end) for start, end in values] if at else values
        at += len(line) + 1
    if "-----END" in text:
        found = _united([*found, *(match.span("value") for match in _KEY_LAST_LINE.finditer(text))])
    return found


def masked(text: str) -> str:
    """Return the text with ``MASK`` in place of every value; the number of lines stays the same."""
    return masked_parts(text)[0]


def masked_parts(*parts: str) -> tuple[str, ...]:
    """Return consecutive parts of one text, masked; a value that spans several parts is masked in each of them."""
    found = secret_values("".join(parts))
    return _masked_at(parts, found) if found else parts


def _masked_at(parts: tuple[str, ...], found: list[ValueSpan]) -> tuple[str, ...]:
    done, begins = [], 0
    for part in parts:
        pieces, at = [], 0
        for start, end in ((start - begins, end - begins) for start, end in found):
            if start < len(part) and end > 0:
                pieces += [part[at : max(start, 0)], MASK]
                at = end
        done.append("".join([*pieces, part[at:]]))
        begins += len(part)
    return tuple(done)


@lru_cache(maxsize=2048)
def _in_line(line: str) -> tuple[ValueSpan, ...]:
    """Return the values of one line. Cached: while somebody types, only one line changes, a new one with each key."""
    return tuple(_found_in(line))


def _found_in(line: str) -> list[ValueSpan]:
    lower = line.lower()
    if len(lower) != len(line):  # some capital letter has a longer small one
        lower = "".join(each.lower() if each.isascii() else each for each in line)
    found = list(_by_hint(line, lower)) if _HINT.search(lower) else []
    if len(line) >= MIN_KEY_LINE_CHARS and _KEY_RUN.search(line) and (match := _KEY_LINE.match(line)):
        found.append(match.span("value"))
    return _united(found) if found else found


def _by_hint(line: str, lower: str) -> Iterator[ValueSpan]:
    looked: set[tuple[int, _ValueKind]] = set()
    for hint in _HINT.finditer(lower):
        start, end = 0, len(line)
        if end > MAX_WHOLE_LINE_CHARS:
            start, end = max(0, hint.start() - CHARS_BEFORE_HINT), min(end, hint.start() + MAX_WHOLE_LINE_CHARS)
        for kind in _BY_HINT[hint[0]]:
            if (start, kind) in looked:
                continue
            looked.add((start, kind))
            if not kind.always_mixed or _SIGN_OR_DIGIT.search(line, start, end):
                yield from _of_kind(kind, line, start, end)


def _of_kind(kind: _ValueKind, text: str, start: int, end: int) -> Iterator[ValueSpan]:
    groups = kind.pattern.groupindex
    while match := kind.pattern.search(text, start, end):
        judged = kind.judge(match)
        if judged:
            yield match.span("value" if "value" in groups else 0)
        # A value may itself be the name of the next one: <add key="password" value="..."/>.
        start = match.end() if judged or "name" not in groups else match.end("name")


def _united(spans: list[ValueSpan]) -> list[ValueSpan]:
    united: list[ValueSpan] = []
    for start, end in sorted(spans):
        if united and start <= united[-1][1]:
            united[-1] = (united[-1][0], max(end, united[-1][1]))
        else:
            united.append((start, end))
    return united
