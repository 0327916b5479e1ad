"""Changes real files in the ways that damage and malice do; the same number always gives the same change."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

NASTY_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 255, 2**31, 2**32, 2**63, 2**64, -(2**63) - 1, 10**30, "@huge@"),
    *(0.5, -0.0, 1e308, -1e-308, float("nan"), float("inf"), float("-inf")),
    *("", "\0", "..", "/", "/etc/passwd", "../../outside", "~", "a" * 5000, "\ud800", "\u2028", "é" * 300, "\x1b[2J"),
    *("base", "fill", "LORA", "default", "0" * 64, "(a+)+$", "%s%n", "{{ 7 * 7 }}", "C:\\x", "-1", "1e9"),
    *([], {}, [[]], {"": None}, [None], [1, "a"], {"a": {"b": []}}),
)
"""What stands where something else is expected."""
NASTY_BYTES = (
    *(b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff\xff\xff\xff\xff", b"\xff" * 8, b"\xed\xa0\x80"),
    *(b"\n", b"\r\n", b"\xef\xbb\xbf", b"\xfe\xff", b'"', b"'", b"\\", b"[", b"]", b"{", b"}", b"=", b"#", b'"""'),
    *(b"../", b"\x1b[31m", b"\xe2\x80\xa8", b"inf", b"nan", b"1e999", b"9" * 400, b"\x00\x00\x00\x80", b"GGUF"),
    *(b"[" * 3000, b'{"a":' * 3000, b"[x]\n", b"x.y.z = 1\n", b"1979-05-27", b"<|im_start|>", b"```", b","),
)
_NUMBERS = (0, 1, 2, 7, 8, 9, 12, 32, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1)


def changed_bytes(content: bytes, draw: Random) -> bytes:
    """The content after one to four changes of its bytes."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        draw.choice(_BYTE_CHANGES)(data, draw)
    return bytes(data)


def changed_json(content: bytes, draw: Random) -> bytes:
    """A JSON document after one to four changes of its values, and now and then of its bytes."""
    text = written(changed_value(json.loads(content), draw))
    return changed_bytes(text, draw) if draw.random() < 0.2 else text


def changed_value(value: Any, draw: Random) -> Any:
    """A value of JSON after one to four changes, to be ``written``."""
    for _ in range(draw.randint(1, 4)):
        value = _changed_value(value, draw)
    return value


def written(value: Any) -> bytes:
    """The value as JSON, with a number that Python does not write."""
    return json.dumps(value).replace('"@huge@"', "9" * 5000).encode()


def changed_lines(content: bytes, draw: Random) -> bytes:
    """JSON documents one a line, of which one is changed, or the bytes of all."""
    lines = content.splitlines(keepends=True)
    if not lines or draw.random() < 0.3:
        return changed_bytes(content, draw)
    at = draw.randrange(len(lines))
    lines[at] = changed_json(lines[at], draw) + draw.choice((b"\n", b"\r\n", b"", b"\n\n"))
    return b"".join(lines)


def changed_toml(content: bytes, draw: Random) -> bytes:
    """A flat TOML file, of which values are exchanged, or bytes changed."""
    if draw.random() < 0.3:
        return changed_bytes(content, draw)
    lines = content.decode().splitlines()
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(lines))
        key, equals, _ = lines[at].partition("=")
        if equals:
            lines[at] = f"{key}= {_toml_value(draw)}"
        else:
            lines.insert(at, draw.choice(("[tune]", "[a.b]", "[[x]]", 'x = "y"', "# é")))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def changed_safetensors(content: bytes, draw: Random) -> bytes:
    """A safetensors file with another header, of which the length fits more often than not."""
    (length,) = struct.unpack_from("<Q", content)
    header, data = content[8 : 8 + length], content[8 + length :]
    if draw.random() < 0.3:
        return changed_bytes(content, draw)
    header = changed_json(header, draw)
    said = len(header) if draw.random() < 0.8 else draw.choice(_NUMBERS)
    return struct.pack("<Q", said) + header + data


def _toml_value(draw: Random) -> str:
    value = draw.choice(NASTY_VALUES)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=draw.random() < 0.5)
    if value is None or isinstance(value, dict):
        return draw.choice(("{ a = 1 }", "1979-05-27", "0x_1", "''", "+inf", "'''\n'''"))
    return json.dumps(value) if isinstance(value, list) else repr(value)[:600]


def _changed_value(value: Any, draw: Random) -> Any:
    """The value with one node of it exchanged, taken out, doubled or nested."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(sorted(value))
        match draw.randrange(8):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return {**value, draw.choice(("", "x", key + "x", "a" * 300, "\ud800", "../x")): value[key]}
            case _:
                return {**value, key: _changed_value(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.85:
        at = draw.randrange(len(value))
        match draw.randrange(6):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return [*value[:at], *[value[at]] * draw.choice((2, 3, 200)), *value[at + 1 :]]
            case _:
                return [*value[:at], _changed_value(value[at], draw), *value[at + 1 :]]
    if draw.random() < 0.05:
        nested: Any = value
        for _ in range(draw.choice((3, 50, 150))):
            nested = [nested]
        return nested
    return (
        draw.choice(NASTY_VALUES[:-1]) if not isinstance(value, int) or draw.random() < 0.5 else draw.choice(_NUMBERS)
    )


def _flip(data: bytearray, draw: Random) -> None:
    if data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _insert(data: bytearray, draw: Random) -> None:
    at = draw.randint(0, len(data))
    data[at:at] = draw.choice(NASTY_BYTES)


def _overwrite(data: bytearray, draw: Random) -> None:
    at, piece = draw.randint(0, len(data)), draw.choice(NASTY_BYTES)[:64]
    data[at : at + len(piece)] = piece


def _number(data: bytearray, draw: Random) -> None:
    at, form = draw.randint(0, len(data)), draw.choice(("<I", "<Q", ">I", "<H"))
    size = struct.calcsize(form)
    data[at : at + size] = struct.pack(form, draw.choice(_NUMBERS) % 2 ** (8 * size))


def _cut(data: bytearray, draw: Random) -> None:
    at = draw.randint(0, len(data))
    del data[at : at + draw.choice((1, 2, 8, 100, len(data)))]


def _repeat(data: bytearray, draw: Random) -> None:
    at = draw.randint(0, len(data))
    piece = bytes(data[at : at + draw.choice((1, 4, 40, 400))])
    data[at:at] = piece * draw.choice((1, 2, 50))


_BYTE_CHANGES: Sequence[Callable[[bytearray, Random], None]] = (
    _flip,
    _flip,
    _insert,
    _overwrite,
    _number,
    _cut,
    _repeat,
)
