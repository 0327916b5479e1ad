"""The official OpenAI client chats with the daemon; the model is played."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from peft_daemon.lifecycle.runtime_info import find_running_daemon
from support.played_daemon import Played, played_home

pytestmark = pytest.mark.asyncio(loop_scope="module")

HI: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def home() -> AsyncIterator[Played]:
    async with played_home() as home:
        home.model.answers({"<|im_start|>assistant\n": "Hello\nthere"})
        yield home


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(home: Played) -> AsyncIterator[AsyncOpenAI]:
    daemon = find_running_daemon(home.paths)
    assert daemon is not None
    transport = httpx.AsyncHTTPTransport(uds=daemon.address.removeprefix("unix:"))
    async with AsyncOpenAI(
        base_url="http://localhost/v1",
        api_key="unused",
        max_retries=0,
        http_client=httpx.AsyncClient(transport=transport),
    ) as client:
        yield client


async def test_a_whole_answer_has_message_end_and_usage(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="base", messages=HI, max_completion_tokens=8, seed=1)
    assert answer.object == "chat.completion" and answer.model == "base"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == "Hello\nthere"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_a_stream_begins_with_the_role_and_ends_with_the_reason(client: AsyncOpenAI) -> None:
    options: openai.types.chat.ChatCompletionStreamOptionsParam = {"include_usage": True}
    stream = await client.chat.completions.create(model="base", messages=HI, stream=True, stream_options=options)
    *pieces, usage = [piece async for piece in stream]
    assert pieces[0].object == "chat.completion.chunk"
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == "Hello\nthere"
    assert [piece.choices[0].finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["stop"]
    assert not usage.choices and usage.usage is not None
    without = await client.chat.completions.create(model="base", messages=HI, stream=True)
    assert all([piece.choices and piece.usage is None async for piece in without])


async def test_a_message_may_come_in_parts_of_text(client: AsyncOpenAI, home: Played) -> None:
    parts: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]}
    ]
    await client.chat.completions.create(model="base", messages=parts)
    assert "<|im_start|>user\none two<|im_end|>" in home.model.asked[-1]


async def test_an_image_is_refused(client: AsyncOpenAI) -> None:
    image: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]}
    ]
    with pytest.raises(openai.BadRequestError, match="image_url"):
        await client.chat.completions.create(model="base", messages=image)


async def test_a_chat_that_is_too_long_is_refused_in_words_that_clients_know(client: AsyncOpenAI) -> None:
    long: list[ChatCompletionMessageParam] = [{"role": "user", "content": "x " * 20_000}]
    with pytest.raises(openai.BadRequestError, match="maximum context length is 4096") as caught:
        await client.chat.completions.create(model="base", messages=long)
    assert caught.value.code == "invalid_input"
    with pytest.raises(openai.BadRequestError, match="maximum context length is 4096"):
        await client.chat.completions.create(model="base", messages=long, stream=True)


async def test_an_unknown_model_is_not_found(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="adapters list"):
        await client.chat.completions.create(model="no-such-adapter", messages=HI)


@pytest.mark.parametrize(
    "bad", [{"messages": []}, {"temperature": 3}, {"top_p": 0}, {"n": 2}, {"max_tokens": -2}], ids=str
)
async def test_bad_values_are_refused(client: AsyncOpenAI, bad: dict[str, object]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(**{"model": "base", "messages": HI, **bad})  # type: ignore[call-overload]
    assert caught.value.code == "invalid_input"


async def test_chats_are_counted_apart(client: AsyncOpenAI, home: Played) -> None:
    await client.chat.completions.create(model="base", messages=HI)
    metrics = await client.get("../metrics", cast_to=httpx.Response)
    assert 'peft_daemon_requests_total{outcome="stop",route="chat"}' in metrics.text


async def test_the_base_is_listed_and_can_be_looked_up(client: AsyncOpenAI) -> None:
    listed = {model.id async for model in client.models.list()}
    assert {"base", "qwen2.5-coder-0.5b-instruct"} <= listed
    assert (await client.models.retrieve("base")).id == "base"
