"""What the torch engine's child is asked for is given back, however the asking ends."""

from __future__ import annotations

import asyncio
import contextlib
import random
from contextlib import aclosing
from pathlib import Path

import pytest

from peft_core.api_types import FinishReason
from peft_core.child_process import ChildGone
from peft_daemon.engines.base import GenerationChunk, GenerationRequest, Segment
from peft_daemon.engines.torch.engine import TorchChild, TorchEngine, TorchOptions
from peft_daemon.engines.torch.messages import (
    CancelCommand,
    CardMemoryMessage,
    ChildMessage,
    ChunkMessage,
    CountTokensCommand,
    GenerateCommand,
    TokenCountsMessage,
    decode_command,
    encode,
)

REQUEST = GenerationRequest((Segment("x = "),), 3)


class PlayedTorch:
    """The process of a child that decodes a token at each turn of the event loop, one request after the other."""

    def __init__(self) -> None:
        self.closed = False
        self.cancelled: set[int] = set()
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()
        self._orders: asyncio.Queue[GenerateCommand] = asyncio.Queue()
        self.work = asyncio.create_task(self._decode())

    def send(self, line: bytes) -> None:
        if self.closed:
            raise ChildGone
        match decode_command(line):
            case GenerateCommand() as order:
                self._orders.put_nowait(order)
            case CancelCommand(id=number):
                self.cancelled.add(number)
            case CountTokensCommand(id=number, texts=texts):
                self.say(TokenCountsMessage(number, [len(text) for text in texts]))

    def say(self, answer: ChildMessage) -> None:
        self._lines.put_nowait(encode(answer))

    async def receive(self) -> bytes:
        if line := await self._lines.get():
            return line
        raise ChildGone

    pid = 1

    def memory_bytes(self) -> int:
        return 1_000

    def stopped(self) -> bool:
        return False

    def kill(self) -> None:
        self._lines.put_nowait(b"")

    async def stop(self) -> None:
        self.work.cancel()
        self.kill()

    async def _decode(self) -> None:
        while True:
            order = await self._orders.get()
            for _ in range(order.request.max_tokens):
                await asyncio.sleep(0)
                if order.id in self.cancelled:
                    break
                self.say(ChunkMessage(order.id, GenerationChunk("x")))
            self.say(ChunkMessage(order.id, GenerationChunk(reason=FinishReason.LENGTH)))


def child_of(process: PlayedTorch) -> TorchChild:
    return TorchChild(process)  # type: ignore[arg-type]  # as much of a process as is used


async def generate(child: TorchChild, *, leave_after: int | None = None) -> None:
    async with aclosing(child.generate(REQUEST)) as items:
        seen = 0
        async for _ in items:
            seen += 1
            if seen == leave_after:
                return


async def test_requests_that_end_left_or_cancelled_leave_nothing_open() -> None:
    chance = random.Random(7)
    process = PlayedTorch()
    child = child_of(process)
    before = len(asyncio.all_tasks())
    asking: list[asyncio.Task[object]] = []
    for _ in range(300):
        leave_after = chance.choice([None, 1, 2])
        asking.append(asyncio.create_task(generate(child, leave_after=leave_after)))
        asking.append(asyncio.create_task(child.count_tokens(["abc"])))
        for _ in range(chance.choice([0, 1, 5])):
            await asyncio.sleep(0)
        if chance.random() < 0.4:
            chance.choice(asking[-6:]).cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await child.idle.wait()
    assert not child._open
    assert len(asyncio.all_tasks()) == before
    await child.end()


async def test_a_command_that_cannot_be_sent_keeps_nothing_busy() -> None:
    process = PlayedTorch()
    child = child_of(process)
    with pytest.raises(UnicodeEncodeError):
        await child.count_tokens(["\ud800"])
    process.closed = True
    for asking in (generate(child), child.count_tokens(["abc"])):
        with pytest.raises(ChildGone):
            await asking
    assert child.idle.is_set()
    await child.end()


async def test_whoever_waits_when_the_child_ends_is_told(caplog: pytest.LogCaptureFixture) -> None:
    process = PlayedTorch()
    child = child_of(process)
    process.work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await process.work
    waiting = asyncio.create_task(generate(child))
    await asyncio.sleep(0)
    process.say(TokenCountsMessage(99, []))  # an answer to nothing
    with pytest.raises(ChildGone):
        await waiting
    assert child.idle.is_set()
    assert "nonsense" in caplog.text


async def test_the_memory_of_a_card_is_added_to_that_of_the_process() -> None:
    process = PlayedTorch()
    child = child_of(process)
    engine = TorchEngine(TorchOptions(model_id="m", model_path=Path("unused")))
    engine._current = child
    before = engine.status().memory_bytes
    process.say(CardMemoryMessage(3_000_000_000))
    assert await child.count_tokens(["x"]) == [1], "which is answered after it"
    assert engine.status().memory_bytes == before + 3_000_000_000
    await child.end()


@pytest.mark.torch
def test_only_a_model_on_a_card_has_memory_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from peft_daemon.engines.torch.base_model import card_memory_bytes

    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7 if device.type == "cuda" else 1)
    assert (card_memory_bytes(torch.device("cuda", 0)), card_memory_bytes(torch.device("cpu"))) == (7, 0)
