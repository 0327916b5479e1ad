"""The settings that VS Code shows are those that the language server reads, with the same defaults and values."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import msgspec
import pytest

from peft_lsp.settings import EditorSettings, read_settings

PROJECT = Path(__file__).parents[3] / "pyproject.toml"
WITHOUT_EXTRAS = """
import importlib, pkgutil, sys
for name in sys.argv[2].split():
    sys.modules[name] = None
import msgspec, peft_lsp
from peft_lsp.settings import EditorSettings, read_settings
for module in pkgutil.walk_packages(peft_lsp.__path__, "peft_lsp."):
    importlib.import_module(module.name)
settings, complaints = read_settings(msgspec.json.decode(sys.argv[1]))
assert not complaints, complaints
assert settings.why_off("file:///a/vendor/x.py", "python")
"""
MANIFEST = Path(__file__).parents[3] / "vscode-client/package.json"
ITS_OWN = {"command", "pipArguments", "tuneArguments", "logLevel"}
"""Settings of the extension."""
OF_OTHER_EDITORS = {"completion"}
"""What an editor needs that cannot show inline completions."""


@pytest.fixture
def shown() -> dict[str, dict[str, Any]]:
    groups = json.loads(MANIFEST.read_text())["contributes"]["configuration"]
    found = {name.removeprefix("peft-daemon."): each for group in groups for name, each in group["properties"].items()}
    return {name: each for name, each in found.items() if name not in ITS_OWN}


def test_vscode_shows_what_the_server_reads(shown: dict[str, dict[str, Any]]) -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(EditorSettings)}
    assert set(shown) == fields - OF_OTHER_EDITORS


def test_the_defaults_are_those_of_the_server(shown: dict[str, dict[str, Any]]) -> None:
    defaults = json.loads(msgspec.json.encode(EditorSettings()))
    assert {name: each["default"] for name, each in shown.items()} == {name: defaults[name] for name in shown}


def test_the_server_takes_every_value_that_vscode_offers(shown: dict[str, dict[str, Any]]) -> None:
    offered = [(name, value) for name, each in shown.items() for value in each.get("enum", ())]
    offered += [(name, [value]) for name, each in shown.items() for value in each.get("items", {}).get("enum", ())]
    offered += [
        (name, each[bound]) for name, each in shown.items() for bound in ("minimum", "maximum") if bound in each
    ]
    assert len(offered) > 10
    assert [read_settings({name: value})[1] for name, value in offered] == [[] for _ in offered]


def test_the_server_needs_no_package_of_an_extra(shown: dict[str, dict[str, Any]]) -> None:
    project = tomllib.loads(PROJECT.read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[^\w.-]", each)[0].lower() for each in requirements}

    extras = set().union(*(names(each) for each in project["optional-dependencies"].values()))
    only_extras = extras - names(project["dependencies"]) - {"peft-daemon"}
    refused = [
        module
        for module, distributions in packages_distributions().items()
        if {each.lower() for each in distributions} <= only_extras
    ]
    assert {"torch", "datasets"} <= set(refused)
    values = {name: each["default"] for name, each in shown.items()} | {"disabledFiles": ["vendor/"]}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, json.dumps(values), " ".join(refused)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
