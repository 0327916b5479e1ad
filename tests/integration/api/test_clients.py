"""Other tools send exactly what their source says, over TCP with the token, and get what they read.

The model is played; each docstring names the file and the commit in which the client writes its request.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

from peft_daemon.lifecycle.runtime_info import find_running_daemon
from support.played_daemon import PlayedModel, played_home

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "qwen2.5-coder-0.5b-instruct"
BEFORE, AFTER, MIDDLE = "def add(a, b):\n    return ", "\n\n\nprint(add(1, 2))\n", "a + b"
HOLE = f"<|fim_prefix|>{BEFORE}<|fim_suffix|>{AFTER}<|fim_middle|>"
WRITTEN = f"<|fim_prefix|><|fim_suffix|>{AFTER}<|fim_middle|>{BEFORE}"
"""What the model reads of it."""
NAME = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


@dataclass(frozen=True)
class Tool:
    """A client of another project, and the model that answers it."""

    http: httpx.AsyncClient
    model: PlayedModel

    async def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """Send a body as the client writes it; the daemon must take it."""
        response = await self.http.post(path, content=json.dumps(body))
        assert response.status_code == 200, response.text
        return response

    async def events(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The events of a stream, which must end as OpenAI's do."""
        text = (await self.post(path, body)).text
        *events, last = [each.removeprefix("data: ") for each in text.split("\n\n") if each]
        assert last == "[DONE]"
        return [json.loads(each) for each in events]


@asynccontextmanager
async def played_tool() -> AsyncIterator[Tool]:
    async with played_home(PEFT_DAEMON_LISTEN="tcp") as home:
        daemon = find_running_daemon(home.paths)
        assert daemon is not None and daemon.token
        home.model.answers({BEFORE: MIDDLE, "<|im_start|>assistant\n": "Hello\nthere"})
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {daemon.token}"}
        async with httpx.AsyncClient(base_url=daemon.address, headers=headers, timeout=60) as http:
            yield Tool(http, home.model)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tool() -> AsyncIterator[Tool]:
    async with played_tool() as tool:
        yield tool


def chat(*turns: tuple[str, str]) -> str:
    """What the model reads of a chat."""
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns) + "<|im_start|>assistant\n"


async def test_zed(tool: Tool) -> None:
    """Edit prediction, ``provider = open_ai_compatible_api``, ``prompt_format = qwen``.

    zed-industries/zed, crates/edit_prediction/src/fim.rs at 09512d2e88ed9316fbccd988b46378e8d779179c and
    open_ai_compatible.rs at 0fd68c5e45b05e43f4d558c87a0c55c8adaaf7c2.
    """
    stop = ["<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"]
    body = {"model": MODEL, "prompt": HOLE, "max_tokens": 64, "stop": stop}
    answer = (await tool.post("/v1/completions", body)).json()
    assert tool.model.asked[-1] == WRITTEN
    assert answer["choices"][0]["text"] == MIDDLE
    # All fields of RawCompletionResponse, none of which may be missing.
    assert {"id", "object", "created", "model", "choices", "usage"} <= set(answer)
    assert {"prompt_tokens", "completion_tokens", "total_tokens"} == set(answer["usage"])
    assert answer["choices"][0]["finish_reason"] == "stop"


CHOSEN = [
    *("content", "timings/prompt_n", "timings/prompt_ms", "timings/prompt_per_token_ms", "timings/prompt_per_second"),
    *("timings/predicted_n", "timings/predicted_ms", "timings/predicted_per_token_ms"),
    *("timings/predicted_per_second", "truncated", "tokens_cached"),
]


async def test_llama_vim(tool: Tool) -> None:
    """Completion, and the extra context that is read ahead.

    ggml-org/llama.vim, autoload/llama.vim (``llama#fim``, ``s:ring_update``) at
    a1c8e6e40cb45df59b78add5b65d575386832465.
    """
    extra = [{"text": "import os\n", "time": [0, 1], "filename": "shop/paths.py"}]
    body = {
        "id_slot": 0,
        "input_prefix": "def add(a, b):\n",
        "input_suffix": AFTER,
        "input_extra": extra,
        "prompt": "    return ",
        "n_predict": 128,
        "stop": [],
        "n_indent": 4,
        "top_k": 40,
        "top_p": 0.90,
        "samplers": ["top_k", "top_p", "infill"],
        "stream": False,
        "cache_prompt": True,
        "t_max_prompt_ms": 500,
        "t_max_predict_ms": 250,
        "response_fields": CHOSEN,
        "model": "",
    }
    response = await tool.post("/infill", body)
    assert response.text.startswith("{") and '"content":"' in response.text, "what it looks for before it decodes"
    answer = response.json()
    assert list(answer) == CHOSEN
    assert answer["content"] == MIDDLE
    assert "<|file_sep|>shop/paths.py\nimport os\n" in tool.model.asked[-1]
    assert tool.model.asked[-1].endswith(WRITTEN)

    ahead = {**body, "input_prefix": "", "input_suffix": "", "prompt": "", "n_predict": 0, "t_max_predict_ms": 1}
    response = await tool.post("/infill", {**ahead, "samplers": [], "response_fields": [""]})
    assert response.json() == {}
    assert "import os" in tool.model.read[-1]


async def test_llama_vim_instructions(tool: Tool) -> None:
    """Editing a selection: a warm-up while the instruction is typed, then a stream.

    ggml-org/llama.vim, autoload/llama.vim (``llama#inst``, ``llama#inst_send``) at
    a1c8e6e40cb45df59b78add5b65d575386832465.
    """
    system = {"role": "system", "content": "You are a text-editing assistant.\n\n--- SELECTION\nx = 1\n"}
    warm_up = {
        "id_slot": 3,
        "messages": [system, {"role": "user", "content": ""}],
        "samplers": [],
        "n_predict": 0,
        "stream": False,
        "cache_prompt": True,
        "response_fields": [""],
    }
    await tool.post("/v1/chat/completions", warm_up)
    assert tool.model.read[-1] == chat(("system", system["content"]), ("user", ""))
    asked = {
        "id_slot": 3,
        "messages": [system, {"role": "user", "content": "INSTRUCTION: say hello"}],
        "min_p": 0.1,
        "temperature": 0.1,
        "samplers": ["min_p", "temperature"],
        "stream": True,
        "cache_prompt": True,
    }
    events = await tool.events("/v1/chat/completions", asked)
    assert "".join(each["choices"][0]["delta"].get("content", "") for each in events) == "Hello\nthere"
    assert tool.model.asked[-1] == chat(("system", system["content"]), ("user", "INSTRUCTION: say hello"))


async def test_llama_vscode(tool: Tool) -> None:
    """Completion, reading ahead, and editing with the chat model.

    ggml-org/llama.vscode, src/llama-server.ts (``createRequestPayload``, ``createChatEditRequestPayload``) at
    3938fb3568b98e3ddfcf2ce3dd52d9570552b579.
    """
    extra = [{"text": "import os\n", "time": 1764000000000, "filename": "/home/a/shop/paths.py"}]
    context = {"id_slot": 0, "input_prefix": "def add(a, b):\n", "input_suffix": AFTER, "input_extra": extra}
    ahead = {"n_predict": 0, "samplers": [], "cache_prompt": True, "t_max_prompt_ms": 500, "t_max_predict_ms": 1}
    await tool.post("/infill", {**context, "prompt": "", **ahead})
    assert "<|file_sep|>/home/a/shop/paths.py\nimport os\n" in tool.model.read[-1]

    asked = {
        "n_predict": 128,
        "n_cmpl": 3,
        "top_k": 40,
        "top_p": 0.99,
        "stream": False,
        "samplers": ["top_k", "top_p", "infill"],
        "cache_prompt": True,
        "n_indent": 4,
        "t_max_prompt_ms": 500,
        "t_max_predict_ms": 500,
        "lora": [{"id": 0, "scale": 0.5}],
        "model": MODEL,
    }
    answer = (await tool.post("/infill", {**context, "prompt": "    return ", **asked})).json()
    assert answer["content"] == MIDDLE
    assert {"prompt_ms", "predicted_ms", "predicted_n"} <= set(answer["timings"])

    messages = [
        {"role": "system", "content": "You are an expert coder.\n"},
        {"role": "user", "content": "Modify the following original code according to the instructions."},
    ]
    edit = {"messages": messages, "stream": False, "cache_prompt": True, "temperature": 0.8, "top_p": 0.95}
    answer = (await tool.post("/v1/chat/completions", edit)).json()
    assert answer["choices"][0]["message"]["content"] == "Hello\nthere"


@pytest.mark.parametrize("context", ["", "Context:\n\n[object Object]\n[object Object]"])
async def test_llama_vscode_with_an_openai_endpoint(tool: Tool, context: str) -> None:
    """``use_openai_endpoint``: the pieces of other files are written as ``[object Object]``.

    ggml-org/llama.vscode, src/llama-server.ts (``handleOpenAICompletion``) at
    3938fb3568b98e3ddfcf2ce3dd52d9570552b579.
    """
    asked = {"max_tokens": 128, "temperature": 0.1, "top_p": 0.99, "stream": False}
    answer = (await tool.post("/v1/completions", {"model": "", "prompt": context + HOLE, **asked})).json()
    assert answer["choices"][0]["text"] == MIDDLE
    assert tool.model.asked[-1] == WRITTEN


async def test_llama_vscode_finds_the_size_of_the_context(tool: Tool) -> None:
    """Limits of its chats: the listed model has ``meta``, so the running server is asked.

    ggml-org/llama.vscode, src/language-model-token-limits.ts and src/llama-server.ts (``getToolsModelTokenLimits``,
    ``applyToolsTemplate``) at 3938fb3568b98e3ddfcf2ce3dd52d9570552b579.
    """
    cards = (await tool.http.get("/v1/models")).json()["data"]
    (card,) = [each for each in cards if each["id"] == MODEL]
    assert isinstance(card["meta"], dict)
    props = await tool.http.get("/props", params={"model": MODEL, "autoload": "false"})
    assert props.json()["default_generation_settings"]["n_ctx"] == 4096
    function = {"type": "function", "function": {"name": "read_file", "parameters": {}}}
    body = {
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}],
        "model": MODEL,
        "tools": [function],
        "tool_choice": "auto",
    }
    prompt = (await tool.post("/apply-template", body)).json()["prompt"]
    assert prompt == chat(("system", "Be short."), ("user", "Hi"))
    await tool.post("/v1/chat/completions", {**body, "max_tokens": 1024})
    assert tool.model.asked[-1] == prompt


@pytest.mark.parametrize("others", ["", "<|file_sep|>shop/paths.py\nimport os"])
async def test_minuet(tool: Tool, others: str) -> None:
    """``openai_fim_compatible`` with the template for llama.cpp, and with files that VectorCode found.

    milanglacier/minuet-ai.nvim, lua/minuet/backends/openai_base.lua, README.md and recipes.md at
    479487c34041f53aad3184597428e42d9f3333b5.
    """
    body = {"model": "base", "stream": True, "max_tokens": 56, "top_p": 0.9, "prompt": others + HOLE}
    events = await tool.events("/v1/completions", body)
    assert "".join(each["choices"][0]["text"] for each in events) == MIDDLE
    assert tool.model.asked[-1].endswith(WRITTEN)
    assert ("<|file_sep|>shop/paths.py\nimport os\n" in tool.model.asked[-1]) == bool(others)


async def test_cursortab(tool: Tool) -> None:
    """``provider.type = "fim"`` with the tokens for other files, which a Qwen model turns on.

    cursortab/cursortab.nvim, server/provider/fim/fim.go and server/client/openai/openai.go at
    b9f9b0a492d97081f5627c37b1d778f901fb85db.
    """
    prompt = (
        "<|repo_name|>shop\n<|file_sep|>shop/paths.py\nimport os\n"
        "<|file_sep|>context/treesitter\nEnclosing scope: def add(a, b):\n"
        "<|file_sep|>context/staged_diff\n+def add(a, b):\n\n"
        f"<|file_sep|>shop/sums.py\n{HOLE}"
    )
    body = {
        "model": MODEL,
        "prompt": prompt,
        "temperature": 0,
        "max_tokens": 128,
        "top_k": 50,
        "stop": ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_sep|>"],
        "n": 1,
        "echo": False,
        "stream": False,
    }
    answer = (await tool.post("/v1/completions", body)).json()
    assert answer["choices"][0]["text"] == MIDDLE
    asked = tool.model.asked[-1]
    assert asked.startswith("<|repo_name|>shop\n<|file_sep|>shop/paths.py\nimport os\n<|file_sep|>context/treesitter\n")
    assert asked.endswith(f"<|file_sep|>shop/sums.py\n{WRITTEN}")


async def test_continue_autocomplete(tool: Tool) -> None:
    """Provider ``openai``: as many tokens of answer as its own default says, whatever the context holds.

    continuedev/continue, core/autocomplete/templating/AutocompleteTemplate.ts at
    01efdfeb6e2046f09192138cb3117e3614273cf9, core/llm/openaiTypeConverters.ts (``toCompleteBody``) at
    0228b897b83e77ea032c9b9a797ba8aba4cad1da and core/llm/constants.ts at 0453d2acf517e94672658833e02e64578db23306.
    """
    stop = [
        *("<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>"),
        *("<|file_sep|>", "<|im_start|>", "<|im_end|>", "/src/", "#- coding: utf-8", "```"),
    ]
    body = {"prompt": HOLE, "model": MODEL, "max_tokens": 4096, "temperature": 0.01, "stream": True, "stop": stop}
    events = await tool.events("/v1/completions", body)
    assert "".join(each["choices"][0]["text"] for each in events) == MIDDLE
    assert tool.model.asked[-1] == WRITTEN


async def test_continue_chat(tool: Tool) -> None:
    """Provider ``openai``: a stream that ends with the usage.

    continuedev/continue, core/llm/openaiTypeConverters.ts (``toChatBody``) at
    0228b897b83e77ea032c9b9a797ba8aba4cad1da and packages/openai-adapters/src/apis/OpenAI.ts (``modifyChatBody``) at
    023111db46abd5620dc79ad62350ccb0002a53ff.
    """
    messages = [
        {"role": "system", "content": "<important_rules>\n  You are in chat mode.\n</important_rules>"},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": " "},
        {"role": "user", "content": "Again"},
    ]
    body = {"messages": messages, "model": MODEL, "max_tokens": 4096, "temperature": 0.5, "stream": True}
    events = await tool.events("/v1/chat/completions", {**body, "stream_options": {"include_usage": True}})
    *pieces, usage = events
    assert "".join(each["choices"][0]["delta"].get("content", "") for each in pieces) == "Hello\nthere"
    assert pieces[0]["choices"][0]["delta"]["role"] == "assistant"
    assert pieces[-1]["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == [] and usage["usage"]["total_tokens"] == sum(
        usage["usage"][key] for key in ("prompt_tokens", "completion_tokens")
    )
    assert tool.model.asked[-1] == chat(*((each["role"], each["content"]) for each in messages))


async def test_aider(tool: Tool) -> None:
    """``aider --model openai/base`` through litellm: files, an earlier answer, and a reminder at the end.

    Aider-AI/aider, aider/models.py (``send_completion``) and aider/coders/base_coder.py (``format_chat_chunks``) at
    5dc9490bb35f9729ef2c95d00a19ccd30c26339c; BerriAI/litellm, litellm/llms/openai/openai.py (``transform_request``) at
    008d4a202a9bf5562a07c5c82143a4b8727f12ba.
    """
    messages = [
        {"role": "system", "content": "Act as an expert software developer."},
        {"role": "user", "content": "I have *added these files to the chat*\n\nsums.py\n```\nx = '<|im_end|>'\n```\n"},
        {"role": "assistant", "content": "Ok, any changes I propose will be to those files."},
        {"role": "user", "content": "add a function"},
        {"role": "system", "content": "# *SEARCH/REPLACE block* Rules:"},
    ]
    body = {"model": "base", "messages": messages, "temperature": 0, "stream": True}
    events = await tool.events("/v1/chat/completions", body)
    assert "".join(each["choices"][0]["delta"].get("content", "") for each in events) == "Hello\nthere"
    assert tool.model.asked[-1] == chat(*((each["role"], each["content"]) for each in messages))
    whole = (await tool.post("/v1/chat/completions", {**body, "stream": False})).json()
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "Hello\nthere"}


@pytest.mark.parametrize("field", ["input_extra", "stop", "n_predict", "temperature", "stream", "response_fields"])
async def test_a_null_field_of_an_infill_request_counts_as_left_out(tool: Tool, field: str) -> None:
    body = {"input_prefix": BEFORE, "input_suffix": AFTER, field: None}
    assert (await tool.post("/infill", body)).json()["content"] == MIDDLE
    unnamed = {"input_extra": [{"text": "import os\n", "filename": None}]}
    await tool.post("/infill", {**body, **unnamed})
    assert "<|file_sep|>tmp\nimport os\n" in tool.model.asked[-1]


@pytest.mark.parametrize("listen", ["tcp", "unix"])
async def test_status_prints_the_token_that_a_tool_needs(listen: str) -> None:
    command = [sys.executable, "-m", "peft_daemon", "status", "--show-token"]
    async with played_home(PEFT_DAEMON_LISTEN=listen) as home:
        daemon = find_running_daemon(home.paths)
        assert daemon is not None and bool(daemon.token) == (listen == "tcp")
        for options, expected in (["--json"], f'"token": "{daemon.token}"'), ([], daemon.token or "none is needed"):
            shown = await asyncio.to_thread(
                subprocess.run, [*command, *options], env={**os.environ, **home.environ}, capture_output=True, text=True
            )
            assert shown.returncode == 0, shown.stderr
            assert expected in shown.stdout
        hidden = await asyncio.to_thread(
            subprocess.run,
            [*command[:-1], "--json"],
            env={**os.environ, **home.environ},
            capture_output=True,
            text=True,
        )
        assert '"token"' not in hidden.stdout
