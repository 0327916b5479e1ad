"""Commands, options, defaults and settings are what was recorded; descriptions may be written better."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from snapshots.snapshot import check, shape
from support.many_commands import Said, run

WIDE = {"COLUMNS": "400", "TERMINAL_WIDTH": "400"}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {**WIDE, "PEFT_DAEMON_HOME": str(tmp_path)}


def section(text: str, title: str) -> list[tuple[str, str]]:
    """Rows of a part of a help text: what is typed, and what is said of it."""
    _, found, rest = text.partition(f"\n{title}:\n")
    rows: list[tuple[str, str]] = []
    for line in rest.splitlines() if found else ():
        if not line.startswith("  "):
            break
        typed, _, said = line[2:].partition("  ")
        if typed:
            rows.append((typed.strip(), said.strip()))
        else:  # goes on from the line before
            before, begun = rows.pop()
            rows.append((before, f"{begun} {said.strip()}".strip()))
    return rows


def brackets(said: str) -> list[str]:
    """What a help text says of a default, of bounds and of being required."""
    return [each for each in re.findall(r"\[([^\]]*)\]", said) if re.match(r"default|required|env var|.*[<>]=", each)]


def options(said: Said) -> dict[str, Any]:
    code, text, _ = said
    assert code == 0, said
    (usage,) = re.findall(r"^Usage: (.*)$", text, re.MULTILINE)
    return {
        "usage": usage,
        "arguments": {typed: brackets(rest) for typed, rest in section(text, "Arguments")},
        "options": {typed: brackets(rest) for typed, rest in section(text, "Options")},
    }


def test_commands(environ: dict[str, str]) -> None:
    found: dict[str, Any] = {}
    groups: Sequence[tuple[str, ...]] = [()]
    while groups:
        said = run([((*words, "--help"), {}) for words in groups], environ)
        found |= {" ".join(("peft-daemon", *words)): options(each) for words, each in zip(groups, said, strict=True)}
        groups = [
            (*words, typed.split()[0])
            for words, (_, text, _) in zip(groups, said, strict=True)
            for typed, _ in section(text, "Commands")
        ]
    assert len(found) > 30
    check("command_line", found)


def test_settings(environ: dict[str, str], tmp_path: Path) -> None:
    """Names, defaults, types and bounds; how the environment and the files are read."""
    ((code, out, _),) = run([(("config", "--json"), {})], environ)
    assert code == 0
    listed = json.loads(out)
    names = [row["name"] for row in listed]
    assert len(names) > 20
    values = ("nonsense", "-1", "99999999999")
    calls = [(("config", "--json"), {f"PEFT_DAEMON_{name.upper()}": value}) for name in names for value in values]
    said = iter(run(calls, environ))
    refused: dict[str, Any] = {}
    for name in names:
        for value in values:
            code, out, _ = next(said)
            why = json.loads(out).get("error", {}).get("why") if code else None
            refused.setdefault(name, {})[value] = why if code else "taken"
    file = tmp_path / "config" / "config.toml"
    file.parent.mkdir()
    file.write_text('threads = 3\nengine = "torch"\n')
    given = run(
        [
            (("config", "--path"), {}),
            (("config", "--json"), {}),
            (("config", "--json"), {"PEFT_DAEMON_THREADS": "2"}),
        ],
        environ,
    )
    assert given[0][1].strip() == str(file)
    layers = [facts(json.loads(out))["threads"] for _, out, _ in given[1:]]
    file.write_text("unknown = 3\n")
    ((code, out, _),) = run([(("config", "--json"), {})], environ)
    unknown = json.loads(out.replace(str(tmp_path), "HOME"))
    check(
        "settings",
        {
            "defaults": facts(listed),
            "bounds": refused,
            "layers": layers,
            "unknown": [code, unknown],
            "shape": shape(listed),
        },
    )


def facts(listed: list[dict[str, Any]]) -> dict[str, Any]:
    """Settings by name, without their descriptions."""
    return {row["name"]: [row["value"], row["source"]] for row in listed}
