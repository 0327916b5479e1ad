"""What guessing from the prompt is worth: decoding with and without, on text that repeats and on text that does not.

    python benchmarks/speculation.py [--holes 50] [--tokens 48] [--threads N] [--json] [FILE.py ...]

Holes are cut by seed out of Python files (the standard library's, unless others are named). ``edit``: a function stands
above a renamed copy of itself, of which the first line or two are typed. ``hole``: a line with its end cut off. Both
engines start from the same KV states, which the first one saves and the second one puts back, so that an answer that
differs differs by speculation alone. For each that does, an engine without it tells how much likelier its own token was
where the two part (nats; rounding decides between tokens that are about as likely). Rates are tokens over milliseconds
of decoding, summed over all holes.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import random
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from peft_core.api_types import Timings
from peft_core.code.document import Document
from peft_core.paths import Paths
from peft_daemon.client import resolve
from peft_daemon.completion import formats, prompt
from peft_daemon.engines.base import GenerationRequest, TokenLogprob
from peft_daemon.engines.llamacpp.engine import LlamaCppEngine, LlamaCppOptions, SavedStatesOptions
from peft_daemon.models import catalogue
from peft_daemon.models.store import open_store

ABOVE, BELOW, PROMPT_TOKENS = 20, 8, 600
ALTERNATIVES = 10


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
    margins: tuple[float, ...]
    """Of those that are not: how much likelier the token without guessing was, in nats; the smallest first."""
    unsteady: int
    """Answers that were others when the engine that does not guess was asked once more; they have no margin."""
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


@dataclass(frozen=True)
class Answer:
    """What one engine wrote."""

    text: str
    timings: Timings
    tokens: tuple[TokenLogprob, ...]
    """Where they were asked for."""


def margin(answer: Answer, other: str) -> float:
    """How much likelier a token was than the one that ``other`` has in its place, or than the end; in nats."""
    text = ""
    for token in answer.tokens:
        if not other.startswith(text + token.token):
            rest = other[len(text) :]
            rivals = [each for name, each in token.top if name != token.token and begins(rest, name)]
            return token.logprob - max(rivals) if rivals else float("inf")
        text += token.token
    return float("inf")


def begins(rest: str, token: str) -> bool:
    """Whether a text goes on with a token; one that is over, with the end or with what no text has."""
    if not rest:
        return not token or token.startswith("<|")
    return bool(token) and rest.startswith(token)


async def answers(
    options: LlamaCppOptions, asked: list[Hole], tokens: int, name: str, *, logprobs: int = 0
) -> list[Answer]:
    """What one engine writes, each prompt read before."""
    engine = LlamaCppEngine(options)
    await engine.start()
    await engine.ready()
    form = formats.get("qwen-fim-v1")
    result = []
    for number, hole in enumerate(asked):
        document = Document.normalized(hole.prefix, hole.suffix)
        segments, held = await prompt.build_for_engine(engine, document, form, PROMPT_TOKENS)
        request = GenerationRequest(segments, tokens, stop=form.stop, begins_with=held, logprobs=logprobs)
        async for _ in engine.generate(replace(request, max_tokens=0)):
            pass
        text, timings, told = "", Timings(), list[TokenLogprob]()
        async for chunk in engine.generate(request):
            timings = chunk.timings
            text += chunk.text
            told += chunk.logprobs
        result.append(Answer(text, timings, tuple(told)))
        sys.stderr.write(f"\r{name}: {number + 1}/{len(asked)}")
    sys.stderr.write("\n")
    await engine.stop()
    return result


async def measure(options: LlamaCppOptions, asked: list[Hole], tokens: int) -> list[Row]:
    plain = await answers(options, asked, tokens, "plain")
    speculating = await answers(replace(options, speculation=True), asked, tokens, "speculating")
    parted = [number for number, (p, s) in enumerate(zip(plain, speculating, strict=True)) if p.text != s.text]
    again = await answers(options, [asked[number] for number in parted], tokens, "judging", logprobs=ALTERNATIVES)
    judged = dict(zip(parted, again, strict=True))
    return [row(kind, asked, plain, speculating, judged) for kind in ("edit", "hole")]


def row(
    kind: str, asked: list[Hole], plain: list[Answer], speculating: list[Answer], judged: Mapping[int, Answer]
) -> Row:
    """All holes of one kind."""
    numbers = [number for number, hole in enumerate(asked) if hole.kind == kind]
    parted = [number for number in numbers if number in judged]
    steady = [number for number in parted if judged[number].text == plain[number].text]
    slow, fast = (rate([each[number].timings for number in numbers]) for each in (plain, speculating))
    return Row(
        kind=kind,
        holes=len(numbers),
        same=len(numbers) - len(parted),
        margins=tuple(sorted(round(margin(judged[n], speculating[n].text), 3) for n in steady)),
        unsteady=len(parted) - len(steady),
        plain_tok_s=slow,
        speculating_tok_s=fast,
        faster=fast / slow if slow else 0.0,
    )


def rate(which: list[Timings]) -> float:
    """Tokens written in a second, all but the first of each answer."""
    return 1000 * sum(max(0, t.decode_tokens - 1) for t in which) / max(1.0, sum(t.decode_ms for t in which))


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
        states = SavedStatesOptions(Path(folder) / "kv", 4 * 10**9, "bench")
        engine = LlamaCppOptions(entry.id, model, Path(folder), threads=options.threads, states=states)
        rows = asyncio.run(measure(engine, holes(files, options.holes), options.tokens))
    if options.json:
        print(msgspec.json.encode(rows).decode())
        return
    for found in rows:
        print(
            f"{found.kind:<6} {found.holes:4} holes  same {found.same:4}  {found.plain_tok_s:6.1f} → "
            f"{found.speculating_tok_s:6.1f} tok/s  × {found.faster:.2f}  "
            f"margins {list(found.margins)}  unsteady {found.unsteady}"
        )


if __name__ == "__main__":
    main()
