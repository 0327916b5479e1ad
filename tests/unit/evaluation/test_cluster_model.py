"""Questions are spread over machines, and none is lost with a machine."""

from __future__ import annotations

import asyncio

import pytest

from peft_core.errors import EngineFailed, InvalidInput
from peft_evaluation.cluster_model import DistributedModel, NodeLost
from peft_evaluation.model import ModelInput, ModelOutput
from peft_tuning.data.examples import IntentExample


class ToldWorker:
    """Answers when it is told to; dies when it is told to."""

    def __init__(self, node: str, at_once: int = 1, memory: int = 1) -> None:
        self.node, self.at_once, self.memory = node, at_once, memory
        self.asked: list[str] = []
        self.in_hand: dict[str, asyncio.Future[tuple[ModelOutput, int]]] = {}

    async def answer(self, question: ModelInput) -> tuple[ModelOutput, int]:
        name = question.example.id
        self.asked.append(name)
        self.in_hand[name] = asyncio.get_running_loop().create_future()
        return await self.in_hand[name]

    def reply(self, name: str) -> None:
        given = ModelOutput(texts=(name,), shown=0, prompt_tokens=1, reused_tokens=0, answer_tokens=1, latency_ms=1.0)
        self.in_hand.pop(name).set_result((given, self.memory))

    def fail(self, error: Exception) -> None:
        for future in self.in_hand.values():
            future.set_exception(error)
        self.in_hand.clear()


def question(name: str) -> ModelInput:
    return ModelInput(example=IntentExample(id=name, intent=name, code=name), shown=(), adapter=None, seed=0)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def ask(answerer: DistributedModel, *names: str) -> list[asyncio.Task[ModelOutput]]:
    return [asyncio.create_task(answerer.answer(question(name))) for name in names]


async def test_each_question_goes_to_the_machine_with_the_fewest_in_hand() -> None:
    small, large = ToldWorker("small"), ToldWorker("large", at_once=3)
    answerer = DistributedModel([small, large])
    assert answerer.at_once == 4
    tasks = ask(answerer, "a", "b", "c", "d")
    await settle()
    assert (small.asked, large.asked) == (["a"], ["b", "c", "d"])
    small.reply("a")
    await settle()
    tasks += ask(answerer, "e")
    await settle()
    assert small.asked == ["a", "e"]
    for worker in (small, large):
        for name in list(worker.in_hand):
            worker.reply(name)
    answers = await asyncio.gather(*tasks)
    assert [given.texts[0] for given in answers] == ["a", "b", "c", "d", "e"]
    assert [given.node for given in answers] == ["small", "large", "large", "large", "small"]


async def test_no_machine_has_more_in_hand_than_it_takes() -> None:
    worker = ToldWorker("one", at_once=2)
    tasks = ask(DistributedModel([worker]), "a", "b", "c")
    await settle()
    assert worker.asked == ["a", "b"]
    worker.reply("b")
    await settle()
    assert worker.asked == ["a", "b", "c"]
    worker.reply("a")
    worker.reply("c")
    await asyncio.gather(*tasks)


async def test_what_a_lost_machine_had_in_hand_is_asked_of_another_and_it_is_asked_no_more() -> None:
    one, two = ToldWorker("one"), ToldWorker("two", at_once=2)
    answerer = DistributedModel([two, one])
    tasks = ask(answerer, "a", "b", "c")
    await settle()
    assert (two.asked, one.asked) == (["a", "c"], ["b"])
    two.fail(NodeLost("killed"))
    await settle()
    for _ in range(3):
        [name] = one.in_hand
        one.reply(name)
        await settle()
    assert [given.node for given in await asyncio.gather(*tasks)] == ["one", "one", "one"]
    assert two.asked == ["a", "c"]
    assert sorted(one.asked) == ["a", "b", "c"]


async def test_when_no_machine_is_left_every_question_fails_with_all_reasons() -> None:
    one, two = ToldWorker("one"), ToldWorker("two")
    answerer = DistributedModel([one, two])
    tasks = ask(answerer, "a", "b", "c")
    await settle()
    one.fail(NodeLost("no power"))
    await settle()
    two.fail(NodeLost("no network"))
    for failed in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(failed, EngineFailed)
        assert "one: no power; two: no network" in failed.line and "--resume" in failed.line


async def test_an_error_of_the_question_itself_is_not_tried_elsewhere_and_frees_the_place() -> None:
    one, two = ToldWorker("one"), ToldWorker("two")
    answerer = DistributedModel([one, two])
    [task] = ask(answerer, "a")
    await settle()
    one.fail(InvalidInput("does not fit"))
    with pytest.raises(InvalidInput, match="does not fit"):
        await task
    [again] = ask(answerer, "b")
    await settle()
    assert (one.asked, two.asked) == (["a", "b"], [])
    one.reply("b")
    await again


async def test_a_question_that_is_given_up_frees_its_place() -> None:
    worker = ToldWorker("one")
    answerer = DistributedModel([worker])
    first, second = ask(answerer, "a", "b")
    await settle()
    first.cancel()
    await settle()
    assert worker.asked == ["a", "b"]
    worker.reply("b")
    await second


async def test_memory_is_that_of_the_machine_that_holds_most() -> None:
    one, two = ToldWorker("one", memory=5), ToldWorker("two", memory=9)
    answerer = DistributedModel([one, two])
    assert answerer.memory_bytes() == 0
    tasks = ask(answerer, "a", "b")
    await settle()
    two.reply("b")
    one.reply("a")
    await asyncio.gather(*tasks)
    assert answerer.memory_bytes() == 9
