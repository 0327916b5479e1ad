"""A small git repository whose commits changed several places at once, as people do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

SHAPES = (
    """\
def area(width, height):
    return width * height


def print_area(width, height):
    print(area(width, height))


side = 2
SQUARE = side + LIMIT * side


"""
    + "\n".join(f"LIMIT_{number} = {number}" for number in range(70))
    + '''


def greet(name):
    """Say something friendly."""
    message = "hello " + name
    return message.strip()
'''
)


def edited_repository(folder: Path, commits: int = 4) -> Path:
    """Make the repository: each commit renames or adds something at several places of each of two files."""
    folder.mkdir(parents=True)

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        subprocess.run(("git", "-C", str(folder), *identity, *arguments), check=True, capture_output=True)

    git("init", "-q")
    text = SHAPES
    for number in range(commits + 1):
        for name in ("shapes.py", "lib/figures.py"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        git("add", "-A")
        git("commit", "-q", "-m", f"change {number}")
        text = changed(text, number)
    return folder


def changed(text: str, number: int) -> str:
    """Return the text as the next commit has it."""
    head = f"width, height, unit{number}"
    text = re.sub(r"^SQUARE = .*$", f"SQUARE = unit{number} + LIMIT * unit{number}", text, flags=re.MULTILINE)
    text = text.replace("width, height)", f"{head})").replace(
        f"LIMIT_{number} = {number}", f"LIMIT_{number} = unit{number}"
    )
    return text.replace(f"LIMIT_{30 + number} =", f"LIMIT_{30 + number} = unit{number} +")
