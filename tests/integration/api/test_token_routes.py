"""Clients of llama.cpp's server count their tokens by the routes that they know; llama.cpp is played."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.played_llama import PlayedLlama
from support.served import daemon_here


@pytest.fixture
async def http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    async with daemon_here(PlayedLlama(tmp_path, ()), monkeypatch) as daemon:
        transport = httpx.AsyncHTTPTransport(uds=daemon.socket)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield http


async def test_llama_vscode_counts_the_tokens_of_a_chat(http: httpx.AsyncClient) -> None:
    """ggml-org/llama.vscode, src/llama-server.ts (``countTextTokens``) at 3938fb3568b98e3ddfcf2ce3dd52d9570552b579."""
    chat = {"messages": [{"role": "user", "content": "Hi"}]}
    prompt = (await http.post("/apply-template", json=chat)).json()["prompt"]
    asked = {"content": prompt, "add_special": False, "parse_special": True}
    tokens = (await http.post("/tokenize", json=asked)).json()["tokens"]
    assert tokens == [ord(character) for character in prompt]
    assert (await http.post("/detokenize", json={"tokens": tokens})).json() == {"content": prompt}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {}),
        ("/tokenize", {"content": "x", "add_special": True}),
        ("/tokenize", {"content": "x", "with_pieces": True}),
        ("/detokenize", {"tokens": ["x"]}),
        ("/detokenize", {"tokens": [-1]}),
        ("/apply-template", {"messages": []}),
        ("/apply-template", {"messages": [{"role": "robot", "content": "x"}]}),
    ],
)
async def test_what_is_not_offered_is_refused(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
    answer = await http.post(path, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_input"
