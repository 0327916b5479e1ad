"""A call loads the module of its command alone, and finds in it what the whole application has."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from peft_cli.app import PARTS, application, parts_of

NAMES = [name for part in PARTS for name in part.names]


def commands(app: typer.Typer) -> list[str]:
    found = typer.main.get_command(app)
    return list(getattr(found, "commands", {}))


def test_every_command_is_named_by_its_part() -> None:
    assert sorted(commands(application())) == sorted(NAMES)
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_part_of_a_command_has_it(name: str) -> None:
    parts = parts_of([name, "--help"])
    assert len(parts) == 1
    assert name in commands(application(parts))


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["nonsense"]])
def test_without_a_command_all_are_there(arguments: list[str]) -> None:
    assert parts_of(arguments) == PARTS


def test_a_command_does_not_load_those_of_others() -> None:
    code = (
        "import sys; from peft_cli.app import application, parts_of; application(parts_of(['stop']));"
        "print([name for name in sys.modules if name.startswith('peft_cli.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "peft_cli.daemon" in done.stdout
    assert "peft_cli.adapters" not in done.stdout and "peft_cli.models" not in done.stdout
