"""What guessing from the prompt is worth: decoding with and without, on text that repeats and on text that does not.

    python benchmarks/speculation.py [--holes 50] [--tokens 48] [--threads N] [--json] [FILE.py ...]

Holes are cut by seed out of Python files (the standard library's, unless others are named). ``edit``: a function stands
above a renamed copy of itself, of which the first line or two are typed. ``hole``: a line with its end cut off. Both
engines start from the same KV states, which the first one saves and the second one puts back, so that an answer that
differs differs by speculation alone. Rates are tokens over milliseconds of decoding, summed over all holes.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import random
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from peft_daemon.client import resolve
from peft_daemon.completion import formats, prompt
from peft_daemon.completion.document import Document
from peft_daemon.engines.base import Finish, GenerationRequest
from peft_daemon.engines.llamacpp import LlamaCppEngine, LlamaCppOptions, StatesOptions
from peft_daemon.models import catalogue
from peft_daemon.models.store import open_store
from peft_daemon.paths import Paths
from peft_daemon.protocol import Timings

ABOVE, BELOW, PROMPT_TOKENS = 20, 8, 600


@dataclass(frozen=True)
class Hole:
    """Where an answer is wanted."""

    kind: str
    prefix: str
    suffix: str


class Row(msgspec.Struct, frozen=True):
    """All holes of one kind."""

    kind: str
    holes: int
    same: int
    """Answers that are the same, character for character."""
    plain_tok_s: float
    speculating_tok_s: float
    faster: float


def edits(lines: list[str], draw: random.Random) -> Iterator[Hole]:
    """One renamed copy of a function."""
    try:
        nodes = list(ast.walk(ast.parse("\n".join(lines))))
    except (SyntaxError, ValueError):
        return
    functions = [n for n in nodes if isinstance(n, ast.FunctionDef) and 5 <= (n.end_lineno or 0) - n.lineno <= 14]
    if not functions:
        return
    node = draw.choice(functions)
    start, end = node.lineno - 1, node.end_lineno or 0
    copy = [lines[start].replace(node.name, f"{node.name}_again", 1), *lines[start + 1 : end]]
    typed = copy[: draw.randint(1, 2)]
    before = [*lines[max(0, start - ABOVE // 2) : end], "", *typed, ""]
    yield Hole("edit", "\n".join(before), "\n".join(["", *lines[end : end + BELOW], ""]))


def ends(lines: list[str], draw: random.Random) -> Iterator[Hole]:
    """One line without its end."""
    numbers = [n for n in range(ABOVE, len(lines) - BELOW) if len(lines[n].strip()) > 8]
    if numbers:
        number = draw.choice(numbers)
        line = lines[number]
        column = draw.randint(len(line) - len(line.lstrip()), len(line) - 4)
        before = [*lines[number - ABOVE : number], line[:column]]
        yield Hole("hole", "\n".join(before), "\n".join(["", *lines[number + 1 : number + BELOW], ""]))


def holes(files: list[Path], count: int) -> list[Hole]:
    """``count`` holes of either kind."""
    draw = random.Random(0)
    draw.shuffle(files)
    found: dict[str, list[Hole]] = {"edit": [], "hole": []}
    for file in files:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        for hole in (*edits(lines, draw), *ends(lines, draw)):
            if len(found[hole.kind]) < count:
                found[hole.kind].append(hole)
    return [*found["edit"], *found["hole"]]


async def answers(options: LlamaCppOptions, asked: list[Hole], tokens: int, name: str) -> list[tuple[str, Timings]]:
    """What one engine writes, each prompt read before."""
    engine = LlamaCppEngine(options)
    await engine.start()
    await engine.ready()
    form = formats.get("qwen-fim-v1")
    result = []
    for number, hole in enumerate(asked):
        built = await prompt.build(
            Document.normalized(hole.prefix, hole.suffix), form, PROMPT_TOKENS, engine.count_tokens
        )
        request = GenerationRequest(built.prompt, tokens, stop=form.stop, begins_with=built.held)
        async for _ in engine.generate(replace(request, max_tokens=0)):
            pass
        text, timings = "", Timings()
        async for item in engine.generate(request):
            timings = item.timings
            text += "" if isinstance(item, Finish) else item.text
        result.append((text, timings))
        sys.stderr.write(f"\r{name}: {number + 1}/{len(asked)}")
    sys.stderr.write("\n")
    await engine.stop()
    return result


async def measure(options: LlamaCppOptions, asked: list[Hole], tokens: int) -> list[Row]:
    plain = await answers(options, asked, tokens, "plain")
    speculating = await answers(replace(options, speculation=True), asked, tokens, "speculating")
    rows = []
    for kind in ("edit", "hole"):
        pairs = [(p, s) for hole, p, s in zip(asked, plain, speculating, strict=True) if hole.kind == kind]

        def rate(which: list[Timings]) -> float:
            return 1000 * sum(max(0, t.decode_tokens - 1) for t in which) / max(1.0, sum(t.decode_ms for t in which))

        slow, fast = rate([p[1] for p, _ in pairs]), rate([s[1] for _, s in pairs])
        same = sum(p[0] == s[0] for p, s in pairs)
        rows.append(Row(kind, len(pairs), same, slow, fast, fast / slow if slow else 0.0))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--holes", type=int, default=50, help="of either kind")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    files = options.files or sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    settings = resolve().settings
    entry = catalogue.get(settings.model)
    with tempfile.TemporaryDirectory(prefix="pd-") as folder:
        model = open_store(settings, Paths.from_environment()).path(entry)
        states = StatesOptions(Path(folder) / "kv", 4 * 10**9, "bench")
        engine = LlamaCppOptions(entry.id, model, Path(folder), threads=options.threads, states=states)
        rows = asyncio.run(measure(engine, holes(files, options.holes), options.tokens))
    if options.json:
        print(msgspec.json.encode(rows).decode())
        return
    for row in rows:
        print(
            f"{row.kind:<6} {row.holes:4} holes  same {row.same:4}  {row.plain_tok_s:6.1f} → "
            f"{row.speculating_tok_s:6.1f} tok/s  × {row.faster:.2f}"
        )


if __name__ == "__main__":
    main()
