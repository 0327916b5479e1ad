"""A git repository in a temporary folder, with commits at given times."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SUBJECTS = ("orders", "invoices", "customers", "parcels", "returns", "stocks", "prices", "taxes", "routes", "drivers")
VERBS = ("load", "check", "merge", "print", "count", "split", "store", "rank")


class OwnRepository:
    """Writes files and commits them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, when: int = 1_700_000_000) -> str:
        """Run git in the repository, whatever the machine's own settings are."""
        environment = {
            **os.environ,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_AUTHOR_DATE": f"@{when} +0000",
            "GIT_COMMITTER_DATE": f"@{when} +0000",
        }
        identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=self.root, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    def write(self, path: str, content: str | bytes) -> Path:
        """Write a file without adding it."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    def commit(self, files: dict[str, str | bytes], *, when: int = 1_700_000_000) -> None:
        """Write, add and commit files at a time (seconds since 1970)."""
        for path, content in files.items():
            self.write(path, content)
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--allow-empty", "--message=x", when=when)


def module(number: int) -> str:
    """A Python module unlike those of other numbers, with functions, blocks and docstrings."""
    subject = SUBJECTS[number % len(SUBJECTS)] + str(number)
    parts = [f'"""What is known about {subject}."""\n\nimport os\n']
    for index in range(3):
        verb = VERBS[(number * 3 + index) % len(VERBS)]
        name = f"{verb}_{subject}_{index}"
        fields = [f"{subject}_{verb}_{letter}{number * 7 + index}" for letter in "abcd"]
        parts.append(
            f"""
def {name}({fields[0]}, {fields[1]}={number * 31 + index}):
    \"\"\"Decide how to {verb} the {subject} of a day.\"\"\"
    {fields[2]} = os.fspath({fields[0]})
    # collect what {fields[2]} has
    for {fields[3]} in sorted({fields[2]}):
        if {fields[3]} != {fields[1]}:
            {fields[0]}.append({fields[3]} * {number + 2})
        else:
            break
    return {fields[0]}, {fields[2]}.strip("{subject}")
"""
        )
    return "\n".join(parts)
