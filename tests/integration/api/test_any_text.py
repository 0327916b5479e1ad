"""What a model writes arrives at every client as it was written, whatever its characters."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI

from peft_daemon.client import CompleteRequest, DaemonClient, FinalEvent
from support.played_llama import PlayedLlama
from support.served import daemon_here

ODD = "a\u2028b\u2029c\x85d\x0be\x1cf"
"""Characters at which text libraries end a line, and no program does."""


@pytest.mark.parametrize("streamed", [False, True])
async def test_separators_of_lines_and_paragraphs_are_text_like_any_other(
    streamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama = PlayedLlama(tmp_path, ())
    llama.writes = ODD + "\n"
    async with daemon_here(llama, monkeypatch) as daemon:
        asked = CompleteRequest(prefix="x = ", suffix="\n", max_tokens=1, language="python")
        async with await DaemonClient.connect(paths=daemon.paths, start=False) as client:
            if streamed:
                last = [event async for event in client.stream(asked)][-1]
                assert isinstance(last, FinalEvent)
                answer = last.response
            else:
                answer = await client.complete(asked)
        assert answer.text == ODD
        transport = httpx.AsyncHTTPTransport(uds=daemon.socket)
        async with AsyncOpenAI(
            base_url="http://localhost/v1", api_key="x", http_client=httpx.AsyncClient(transport=transport)
        ) as openai:
            if streamed:
                pieces = await openai.completions.create(model="", prompt="x = ", max_tokens=1, stream=True)
                text = "".join([piece.choices[0].text async for piece in pieces])
            else:
                text = (await openai.completions.create(model="", prompt="x = ", max_tokens=1)).choices[0].text
        assert text == ODD + "\n"
