"""Clients that ask while adapters are changed, rolled back and removed by another process, as the command line does it.

The adapters differ in every token (``telling_adapters``). Each answer is compared with the one that its adapter gave
alone. A request that names no adapter says which one answered; where nothing was changed while it was under way, that
must be the one in use.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec

from peft_core.api_types import BASE, CompleteResponse, FinalEvent, StreamEvent, Task
from peft_core.tasks import cancel_and_wait
from support.telling_adapters import ALPHABETS, write_telling_adapter
from support.tiny_serving import TinyServing

CLIENTS = 16
MOVED = "moved"
"""The name that points at one adapter after the other."""
REMOVED = "digits"
"""The adapter that is removed with its files and imported again."""
LASTING = ("small", "capital")
PROMPTS = ("def f(x):", "class A:", "import os", "x = [1, 2]", "for each in them:", "return")
CODE = tuple(f"def {name}(x):\n    return " for name in ("add", "half", "part", "total", "clip", "rank", "sort"))
LEAST_CODES = 4
MAX_TOKENS = 12
MOST_PAUSE_S = 0.2
"""Between two changes."""


@dataclass(frozen=True)
class InUse:
    """Which adapter answers requests that name none, since when; None while that is being changed."""

    change: int
    adapter: str | None


@dataclass
class Outcome:
    """What became of the requests."""

    answers: Counter[str] = field(default_factory=Counter)
    """Answered requests, by kind and by the adapter that answered."""
    refused: Counter[int] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return sum(count for kind, count in self.answers.items() if ":" not in kind)

    def line(self) -> str:
        """All of it in a few lines."""
        answers, refused, changes = (dict(each) for each in (self.answers, self.refused, self.changes))
        return f"{self.answered:,} answers {answers}\nrefused {refused}, changes {changes}"


class AdapterRace:
    """The clients, what changes the adapters meanwhile, and what each adapter answers when it is alone."""

    def __init__(self, serving: TinyServing, folder: Path, seed: int) -> None:
        self.outcome = Outcome()
        self._serving, self._random = serving, random.Random(seed)
        self._folders = {name: write_telling_adapter(folder / name, serving.model, name) for name in ALPHABETS}
        self._alone: dict[tuple[str, str], str] = {}
        self._names: dict[str, str] = {}
        """Of the adapters, by digest."""
        self._codes: list[str] = []
        """What everyone has an answer to."""
        self._in_use = InUse(0, BASE)

    async def run(self, requests: int) -> None:
        """Ask until so many requests are answered."""
        async with self._serving.client() as client:
            await self._learn(client)
            changing = asyncio.create_task(self._change())
            asking = asyncio.gather(*(self._ask_until(number, requests) for number in range(CLIENTS)))
            # The changes end only when one of them fails.
            await asyncio.wait((changing, asking), return_when=asyncio.FIRST_COMPLETED)
            if changing.done():
                changing.result()
            await cancel_and_wait(changing)
            await asking

    async def _learn(self, client: httpx.AsyncClient) -> None:
        """Ask each adapter alone, and the base."""
        for name in ALPHABETS:
            self._import(name, name)
        for name in (*ALPHABETS, BASE):
            for prompt in PROMPTS:
                answer = await client.post("/v1/completions", json=_raw(name, prompt))
                self._alone[name, prompt] = answer.json()["choices"][0]["text"]
            for code in CODE:
                answer = await client.post("/v1/complete", json=_fill(code, adapter=name))
                self._alone[name, code] = answer.json()["text"]
        for (name, question), text in self._alone.items():
            assert name == BASE or set(text) <= set(ALPHABETS[name]), f"{name} answers {text!r} to {question!r}"
        # An answer that is cut off in its first word is none.
        self._codes = [code for code in CODE if all(self._alone[name, code] for name in (*ALPHABETS, BASE))]
        assert len(self._codes) >= LEAST_CODES

    def _import(self, adapter: str, name: str) -> None:
        manifest = self._serving.registry.import_(self._folders[adapter], name=name, base=self._serving.base)
        self._names[manifest.digest] = adapter

    # What changes the adapters.

    async def _change(self) -> None:
        registry = self._serving.registry
        steps: Sequence[tuple[str, str, Callable[[], object]]] = (
            ("import", "small", partial(self._import, "small", MOVED)),
            ("use", "small", partial(registry.use, MOVED, Task.FILL)),
            ("import again", "capital", partial(self._import, "capital", MOVED)),
            ("roll back", "small", partial(registry.rollback, MOVED)),
            ("use", "capital", partial(registry.use, "capital", Task.FILL)),
            ("use", "digits", partial(registry.use, REMOVED, Task.FILL)),
            ("remove", BASE, partial(registry.remove, REMOVED, force=True)),
            ("use", "small", partial(registry.use, MOVED, Task.FILL)),
            ("import again", "small", partial(self._import, REMOVED, REMOVED)),
            ("import again", "capital", partial(self._import, "capital", MOVED)),
            ("remove", BASE, partial(registry.remove, MOVED, force=True)),
        )
        first = True
        while True:
            for what, then, step in steps:
                number = self._in_use.change + 1
                self._in_use = InUse(number, None)
                await asyncio.to_thread(step)
                # Before its first use, the name decides nothing.
                self._in_use = InUse(number, BASE if first and what == "import" else then)
                first = False
                self.outcome.changes[what] += 1
                await asyncio.sleep(self._random.uniform(0, MOST_PAUSE_S))
            first = True

    # What asks.

    async def _ask_until(self, number: int, requests: int) -> None:
        chance = random.Random(number)
        ask: Sequence[Callable[[httpx.AsyncClient, random.Random], Awaitable[None]]] = (
            self._raw_named,
            self._fill_named,
            self._fill_in_use,
            self._stream_in_use,
            self._typing,
        )
        async with self._serving.client() as client:
            while self.outcome.answered < requests and not self.outcome.wrong:
                await chance.choice(ask)(client, chance)

    async def _raw_named(self, client: httpx.AsyncClient, chance: random.Random) -> None:
        name, prompt = chance.choice((*ALPHABETS, BASE)), chance.choice(PROMPTS)
        answer = await client.post("/v1/completions", json=_raw(name, prompt))
        if self._refused(answer, name):
            return
        self._note("completions", name, prompt, answer.json()["choices"][0]["text"])

    async def _fill_named(self, client: httpx.AsyncClient, chance: random.Random) -> None:
        name, code = chance.choice((*ALPHABETS, BASE)), chance.choice(self._codes)
        answer = await client.post("/v1/complete", json=_fill(code, adapter=name))
        if self._refused(answer, name):
            return
        told = msgspec.json.decode(answer.content, type=CompleteResponse)
        if self._teller(told) != name:
            self.outcome.wrong.append(f"{name} was named, and {self._teller(told)} answered")
        self._note("complete", name, code, told.text)

    async def _fill_in_use(self, client: httpx.AsyncClient, chance: random.Random) -> None:
        code, before = chance.choice(self._codes), self._in_use
        answer = await client.post("/v1/complete", json=_fill(code))
        if self._refused(answer, "none"):
            return
        self._note_in_use("in use", before, code, msgspec.json.decode(answer.content, type=CompleteResponse))

    async def _stream_in_use(self, client: httpx.AsyncClient, chance: random.Random) -> None:
        code, before = chance.choice(self._codes), self._in_use
        answer = await client.post("/v1/complete", json=_fill(code, stream=True))
        if self._refused(answer, "none"):
            return
        *pieces, last = [
            msgspec.json.decode(line.removeprefix("data: "), type=StreamEvent)
            for line in answer.text.split("\n\n")
            if line
        ]
        if not isinstance(last, FinalEvent):
            self.outcome.wrong.append(f"a stream ended with {last}")
            return
        if "".join(getattr(piece, "text", "") for piece in pieces) not in ("", last.response.text):
            self.outcome.wrong.append(f"a stream told {pieces}, and then {last}")
        self._note_in_use("stream", before, code, last.response)

    async def _typing(self, client: httpx.AsyncClient, chance: random.Random) -> None:
        """Type what is suggested; the rest may come from a running or a finished generation."""
        code, document = chance.choice(self._codes), f"file:///{chance.random()}.py"
        for _ in range(3):
            before = self._in_use
            asked = _fill(code, document=document, automatic=True, show_after_ms=chance.choice((None, 20)))
            answer = await client.post("/v1/complete", json=asked)
            if self._refused(answer, "none"):
                return
            told = msgspec.json.decode(answer.content, type=CompleteResponse)
            who = self._teller(told)
            if who != BASE and not set(told.text) <= set(ALPHABETS[who]):
                self.outcome.wrong.append(f"{who} answers {told.text!r} where somebody types")
            self._must_be_in_use(before, who)
            self._count("typing", who)
            # The model has one token of two letters, "in": after an "i" it may go on with it whoever writes.
            code += told.text[:2].replace("i", "")

    # What is right.

    def _teller(self, told: CompleteResponse) -> str:
        return BASE if told.adapter is None else self._names[told.adapter.digest]

    def _note_in_use(self, kind: str, before: InUse, code: str, told: CompleteResponse) -> None:
        who = self._teller(told)
        self._must_be_in_use(before, who)
        self._note(kind, who, code, told.text)

    def _must_be_in_use(self, before: InUse, who: str) -> None:
        if before == self._in_use and before.adapter is not None and who != before.adapter:
            self.outcome.wrong.append(f"{before.adapter} is in use, and {who} answered")

    def _note(self, kind: str, who: str, question: str, text: str) -> None:
        if text != self._alone[who, question]:
            self.outcome.wrong.append(f"{who} answered {text!r}, alone {self._alone[who, question]!r} ({kind})")
        self._count(kind, who)

    def _count(self, kind: str, who: str) -> None:
        self.outcome.answers[kind] += 1
        self.outcome.answers[f"by: {who}"] += 1

    def _refused(self, answer: httpx.Response, named: str) -> bool:
        """Whether it is a refusal, which only a request that names the removed adapter may get, with what to do."""
        if answer.status_code == 200:
            return False
        self.outcome.refused[answer.status_code] += 1
        error = answer.json()["error"]
        if named != REMOVED or answer.status_code != 404 or not error["fix"]:
            self.outcome.wrong.append(f"{answer.status_code} for {named}: {error}")
        return True


def _raw(model: str, prompt: str) -> dict[str, Any]:
    return {"model": model, "prompt": prompt, "max_tokens": MAX_TOKENS, "temperature": 0}


def _fill(code: str, **changes: Any) -> dict[str, Any]:
    return {"prefix": code, "suffix": "\n", "max_tokens": MAX_TOKENS, "task": "fill", **changes}
