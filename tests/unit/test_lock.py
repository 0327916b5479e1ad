"""What is installed is pinned: ``requirements.lock`` has the versions of ``constraints.txt``, each with a hash."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def lines(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def normal(pinned: str) -> str:
    return re.sub(r"[-_.]+", "-", pinned.partition("==")[0]).lower() + "==" + pinned.partition("==")[2]


def test_the_lock_has_the_versions_of_the_constraints_and_no_other() -> None:
    locked = {normal(line.partition(" ")[0]) for line in lines("requirements.lock")}
    assert locked == {normal(line) for line in lines("constraints.txt")}


def test_every_package_of_the_lock_has_one_hash() -> None:
    for line in lines("requirements.lock"):
        assert re.fullmatch(r"[\w.-]+==[\w.]+ --hash=sha256:[0-9a-f]{64}", line), line


def test_everything_that_is_asked_for_is_pinned() -> None:
    asked = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    for extra in (*PROJECT["project"]["optional-dependencies"].values(), PROJECT["dependency-groups"]["test"]):
        asked += extra
    pinned = {normal(line).partition("==")[0] for line in lines("constraints.txt")}
    for requirement in asked:
        name = re.match(r"[\w.-]+", requirement)
        assert name is not None
        assert normal(name[0]).partition("==")[0] in pinned | {"peft-daemon"}, requirement


def test_packages_of_the_extension_are_pinned_with_hashes_and_run_nothing_when_they_are_installed() -> None:
    lock = json.loads((ROOT / "vscode-client" / "package-lock.json").read_text(encoding="utf-8"))
    for name, package in lock["packages"].items():
        assert not name or package.get("link") or package["integrity"].startswith("sha512-"), name
    assert "ignore-scripts=true" in (ROOT / "vscode-client" / ".npmrc").read_text(encoding="utf-8").split()
    for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines():
        assert not re.search(r"\bnpm (install|i|ci)\b(?!.*--ignore-scripts)", line), line
