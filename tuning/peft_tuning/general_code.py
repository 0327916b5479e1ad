"""Code everybody's model knows: holes in Python's own library, to see whether an adapter made the model forget."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from peft_core.code.structure import structure
from peft_tuning.examples import FillExample, HoleKind
from peft_tuning.repository.holes import Cutting, cut

MODULES = (
    "argparse.py", "bisect.py", "calendar.py", "configparser.py", "csv.py", "difflib.py", "fractions.py", "heapq.py",
    "shlex.py", "statistics.py", "textwrap.py", "zipapp.py",
)  # fmt: skip
AROUND = 4000
"""Characters of the module on each side of a hole."""


def general_holes(count: int) -> tuple[FillExample, ...]:
    """``count`` holes in lines, the same every time for one version of Python; fewer where modules are missing."""
    library = Path(sysconfig.get_path("stdlib"))
    cutting = Cutting(shares={HoleKind.LINE: 1.0})
    by_module = []
    for module in MODULES:
        if not (library / module).is_file():
            continue
        text = (library / module).read_text(encoding="utf-8")
        holes = cut(structure(text, "python"), seed=module, cutting=cutting, avoid=())
        by_module.append([_example(module, text, hole.start, hole.end) for hole in holes])
    turns = (each[turn] for turn in range(count) for each in by_module if turn < len(each))
    return tuple(example for example, _ in zip(turns, range(count), strict=False))


def _example(module: str, text: str, start: int, end: int) -> FillExample:
    return FillExample(
        id=f"{module}:{start}",
        prefix=text[max(0, start - AROUND) : start],
        middle=text[start:end],
        suffix=text[end : end + AROUND],
        path=module,
        kind=HoleKind.LINE,
    )
