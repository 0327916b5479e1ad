"""What the llama.cpp server writes arrives as it was written."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_daemon.engines.base import GenerationRequest, Segment
from peft_daemon.engines.llamacpp.server import TokenCache
from support.played_llama import PlayedLlama

TEXT = "a line of many words that is long enough"
LINES_BREAK_HERE = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\r\n"


@given(st.text(st.characters(codec="utf-8") | st.sampled_from(LINES_BREAK_HERE), min_size=1, max_size=30))
async def test_a_text_is_what_the_model_wrote_whatever_its_characters(text: str) -> None:
    llama = PlayedLlama(Path(), ())
    llama.writes = text
    request = GenerationRequest((Segment("x = "),), max_tokens=8)
    async with aclosing(llama.client(None).generate(request, adapters=())) as chunks:
        texts = [chunk.text async for chunk in chunks]
    assert set(texts) - {""} == {text}


@pytest.mark.parametrize(("step_tokens", "steps"), [(0, 8), (10, 4), (1000, 1)])
async def test_a_prompt_is_read_in_steps_as_long_as_the_request_says(step_tokens: int, steps: int) -> None:
    llama = PlayedLlama(Path(), ())
    client = llama.client(None, step_tokens=5)
    length = len(await client.tokenize(TEXT))
    request = GenerationRequest((Segment(TEXT),), max_tokens=0, step_tokens=step_tokens)
    async with aclosing(client.generate(request, adapters=())) as chunks:
        read = [chunk.timings.prompt_evaluated async for chunk in chunks]
    assert read[-1] == length
    assert llama.orders.count("/completion") == -(-length // (step_tokens or 5)) == steps


def test_cached_token_ids_are_those_of_the_texts_used_last_and_of_so_many_characters() -> None:
    cache = TokenCache(limit=10)
    cache.put("abcd", [1, 2], special=False)
    cache.put("efgh", [3], special=False)
    assert cache.get("abcd", special=False) == [1, 2]
    cache.put("ijk", [4], special=False)
    assert cache.get("efgh", special=False) is None, "it was not used for the longest time"
    assert (cache.get("abcd", special=False), cache.get("ijk", special=False)) == ([1, 2], [4])
    assert cache.get("ijk", special=True) is None
    cache.put("longer than all", [5], special=False)
    assert cache.get("longer than all", special=False) is None
    assert cache.get("ijk", special=False) == [4]
