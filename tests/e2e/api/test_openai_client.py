"""The official OpenAI client, unchanged, against the daemon: over TCP with the token, and over the unix socket."""

from __future__ import annotations

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from support.running_daemon import RunningDaemon

pytestmark = pytest.mark.model

MODEL = "qwen2.5-coder-0.5b-instruct"


@pytest.fixture(scope="module")
def client(tcp_daemon: RunningDaemon) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{tcp_daemon.address}/v1", api_key=tcp_daemon.token, max_retries=0)


def test_it_completes(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="def add(a, b):\n    return a", max_tokens=4, temperature=0)
    assert answer.choices[0].text.startswith(" + b")
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


def test_suffix_means_fill_in_the_middle(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL, prompt='def greet(name):\n    return "Hello, " + ', suffix="\n", max_tokens=8, temperature=0
    )
    assert answer.choices[0].text.strip().startswith("name")
    assert "<|" not in answer.choices[0].text


WRITTEN = "<|fim_prefix|>def add(a, b):\n    return <|fim_suffix|>\n\nprint(add(1, 2))\n<|fim_middle|>"
"""What Zed, minuet, llm-ls and others send: they know no ``suffix``."""


@pytest.mark.parametrize(
    "prompt",
    [
        WRITTEN,
        "<|fim_suffix|>\n\nprint(add(1, 2))\n<|fim_prefix|>def add(a, b):\n    return <|fim_middle|>",
        "<fim_prefix>def add(a, b):\n    return <fim_suffix>\n\nprint(add(1, 2))\n<fim_middle>",
        "<PRE> def add(a, b):\n    return  <SUF>\n\nprint(add(1, 2))\n <MID>",
    ],
)
def test_a_hole_that_the_client_wrote_is_filled_as_with_a_suffix(client: openai.OpenAI, prompt: str) -> None:
    asked = {"model": MODEL, "max_tokens": 16}
    expected = client.completions.create(  # type: ignore[call-overload]
        **asked, prompt="def add(a, b):\n    return ", suffix="\n\nprint(add(1, 2))\n", temperature=0
    )
    assert expected.choices[0].text.startswith("a + b")
    assert client.completions.create(**asked, prompt=prompt).choices[0].text == expected.choices[0].text  # type: ignore[call-overload]
    pieces = client.completions.create(**asked, prompt=prompt, stream=True)  # type: ignore[call-overload]
    assert "".join(piece.choices[0].text for piece in pieces) == expected.choices[0].text


def test_the_files_in_a_prompt_that_the_client_wrote_are_seen(client: openai.OpenAI) -> None:
    files = (
        "<|repo_name|>shop\n<|file_sep|>prices.py\ndef gross_price(net):\n    return net * 1.19\n<|file_sep|>cart.py\n"
    )
    hole = "<|fim_prefix|>import prices\n\ntotal = prices.<|fim_suffix|>\n<|fim_middle|>"
    answer = client.completions.create(model=MODEL, prompt=files + hole, max_tokens=8)
    assert answer.choices[0].text.startswith("gross_price(")


def test_zed_gets_what_belongs_into_the_hole(client: openai.OpenAI) -> None:
    """Edit prediction with ``prompt_format = qwen``.

    zed-industries/zed, crates/edit_prediction/src/fim.rs at 09512d2e88ed9316fbccd988b46378e8d779179c.
    """
    stop = ["<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"]
    answer = client.completions.create(model=MODEL, prompt=WRITTEN, max_tokens=64, stop=stop)
    assert answer.choices[0].text.startswith("a + b")
    assert answer.choices[0].finish_reason == "stop"


TURNS: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Answer with one word."},
    {"role": "user", "content": "The capital of France?"},
    {"role": "assistant", "content": "Paris"},
    {"role": "user", "content": "And of Italy?"},
]


def test_it_chats(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=TURNS, temperature=0, max_completion_tokens=16)
    assert answer.choices[0].message.content is not None
    assert "Rome" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop", "the turn ended before the limit"
    assert "<|im_" not in answer.choices[0].message.content


def test_llama_vscode_counts_the_tokens_that_a_chat_has(client: openai.OpenAI, tcp_daemon: RunningDaemon) -> None:
    """Before it sends a chat.

    ggml-org/llama.vscode, src/llama-server.ts (``countToolsPromptTokens``) at 3938fb3568b98e3ddfcf2ce3dd52d9570552b579.
    """
    answer = client.chat.completions.create(model=MODEL, messages=TURNS, temperature=0, max_tokens=1)
    with tcp_daemon.http() as http:
        prompt = http.post("/apply-template", json={"messages": TURNS}).json()["prompt"]
        asked = {"content": prompt, "add_special": False, "parse_special": True}
        tokens = http.post("/tokenize", json=asked).json()["tokens"]
        assert http.post("/detokenize", json={"tokens": tokens}).json()["content"] == prompt
    assert answer.usage is not None and answer.usage.prompt_tokens == len(tokens)


def test_a_streamed_chat_is_the_same_and_stops_at_a_stop_string(client: openai.OpenAI) -> None:
    asked: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "Write the numbers from 1 to 9 with commas between them, nothing else."}
    ]
    options = {"model": MODEL, "messages": asked, "temperature": 0, "max_tokens": 48, "stop": "7"}
    client.chat.completions.create(**options)  # type: ignore[call-overload]  # fills the cache, so that both read the same
    whole = client.chat.completions.create(**options)  # type: ignore[call-overload]
    pieces = list(client.chat.completions.create(**options, stream=True))  # type: ignore[call-overload]
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert text == whole.choices[0].message.content
    assert "6" in text and "7" not in text


def test_control_tokens_in_a_message_end_no_turn(client: openai.OpenAI) -> None:
    """Read as text such a token is several tokens; read as control it would be one."""
    quoted: list[ChatCompletionMessageParam] = [{"role": "user", "content": "<|im_end|>" * 20}]
    answer = client.chat.completions.create(model=MODEL, messages=quoted, max_tokens=1, temperature=0)
    assert answer.usage is not None and answer.usage.prompt_tokens > 80


def test_text_about_the_tokens_is_no_hole(client: openai.OpenAI) -> None:
    told = client.completions.create(model=MODEL, prompt=WRITTEN + WRITTEN, max_tokens=1, temperature=0)
    assert told.usage is not None
    assert told.usage.prompt_tokens > 60, "read as it stands, not as control tokens"


def test_a_stream_gives_the_same_text_and_ends(client: openai.OpenAI) -> None:
    arguments = {"model": MODEL, "prompt": "for i in range(", "max_tokens": 6, "temperature": 0}
    client.completions.create(**arguments)  # type: ignore[call-overload]  # fills the cache, so that both read the same
    whole = client.completions.create(**arguments)  # type: ignore[call-overload]
    pieces = list(client.completions.create(**arguments, stream=True))  # type: ignore[call-overload]
    assert "".join(p.choices[0].text for p in pieces) == whole.choices[0].text
    assert pieces[-1].choices[0].finish_reason == "length"
    assert len(pieces) > 2


def test_logprobs(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="import", max_tokens=3, temperature=0, logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.tokens and logprobs.token_logprobs and logprobs.top_logprobs
    assert "".join(logprobs.tokens) == answer.choices[0].text
    assert all(p is not None and p <= 0 for p in logprobs.token_logprobs)
    assert all(len(top) == 2 for top in logprobs.top_logprobs)
    assert logprobs.text_offset == [0, len(logprobs.tokens[0]), len("".join(logprobs.tokens[:2]))]


def test_stop_strings_end_the_answer(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="a = [1, 2, 3", stop="]", max_tokens=40, temperature=0)
    assert "]" not in answer.choices[0].text
    assert answer.choices[0].finish_reason == "stop"


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert {MODEL, "base"} <= {m.id for m in client.models.list()}
    assert client.models.retrieve(MODEL).id == MODEL
    assert client.models.retrieve("base").root == MODEL


def test_an_unknown_model_is_not_found_with_the_fix(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="adapters list"):
        client.completions.create(model="no-such-adapter", prompt="x", max_tokens=1)
    with pytest.raises(openai.NotFoundError, match="adapters list"):
        list(client.completions.create(model="no-such-adapter", prompt="x", max_tokens=1, stream=True))


def test_a_wrong_key_is_an_authentication_error(tcp_daemon: RunningDaemon) -> None:
    wrong = openai.OpenAI(base_url=f"{tcp_daemon.address}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        wrong.models.list()


@pytest.mark.parametrize(
    "bad",
    [
        {"prompt": ""},
        {"prompt": "x", "max_tokens": -1},
        {"prompt": "x", "max_tokens": 10**9},
        {"prompt": "x", "temperature": -0.1},
        {"prompt": "x", "top_p": 7},
        {"prompt": "x", "n": 3},
        {"prompt": "x", "logprobs": 99},
        {"prompt": "x", "echo": True},
    ],
    ids=str,
)
def test_bad_values_are_refused_one_by_one(client: openai.OpenAI, bad: dict[str, object]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, **bad)  # type: ignore[call-overload]
    assert caught.value.code == "invalid_input"


def test_it_works_over_the_unix_socket(daemon: RunningDaemon) -> None:
    transport = httpx.HTTPTransport(uds=daemon.address.removeprefix("unix:"))
    client = openai.OpenAI(
        base_url="http://localhost/v1", api_key="unused", max_retries=0, http_client=httpx.Client(transport=transport)
    )
    assert client.completions.create(model="base", prompt="import o", max_tokens=2).choices[0].text
