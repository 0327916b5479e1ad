"""The tokenizer that tuning takes from the GGUF file makes exactly the tokens llama.cpp makes, of any text."""

from __future__ import annotations

import ast
import random
import stringprep
import textwrap
import turtle
from collections.abc import Iterator
from html import entities
from pathlib import Path

import pytest

from peft_core.errors import InvalidInput
from peft_daemon.completion import formats
from peft_daemon.engines.base import Segment
from support.lora_server import LoraServer, serve

pytestmark = [pytest.mark.model, pytest.mark.torch, pytest.mark.timeout(900)]

FILES = tuple(module.__file__ for module in (ast, textwrap, entities, stringprep, turtle))
ODD = (
    *("", " ", "\n", "  \n\t x", "   \n   \n\n  ", "a\r\nb\r\n\r\n  c", " " * 77 + "return", "\t\t\tif", "x" * 300),
    *("<|fim_middle|>x<|endoftext|>", "<tool_call>{}</tool_call>", "<|im_start|>system\n", "[PAD151665]", "Ġ Ċ"),
    *(
        "e\u0301 é",
        "ſ 'ſ I'S I'll 'RE 's'S'lL 'Ve",
        "日本語のコメント # 漢字",
        "🙂👩‍👩‍👧",
        "١٢٣ ² ½ Ⅷ",
        "ﬁ ﬀ Å Å",
        "ก็ हिन्दी",
    ),
    *("\u200b\ufeff x\u00a0y\u3000z", "\x00\x01\x7f", "\ud7ff\ue000\U0010ffff", "\x85\x1c\x1d x", "\u2028 \u2029 y"),
)
LETTERS = "ab 1_\n\t\r'\"(){}<|>é漢🙂\u0301\u00a0.,;:-+=#ſK\u2003"


@pytest.fixture(scope="module")
def server(model_file: Path) -> Iterator[LoraServer]:
    with serve(model_file) as running:
        yield running


def test_every_text_has_the_same_tokens(model_file: Path, server: LoraServer) -> None:
    from peft_daemon.engines.torch.tokenizer import LiteralTokenizer, load_tokenizer

    tokenizer = LiteralTokenizer(load_tokenizer(model_file))
    draw = random.Random(0)
    mixed = ["".join(draw.choices(LETTERS, k=draw.randint(1, 40))) for _ in range(150)]
    files = [Path(name).read_text(encoding="utf-8")[:60_000] for name in FILES if name]
    for text in (*ODD, *mixed, *files):
        assert tokenizer.encode_text(text) == server.tokenize(text), repr(text[:80])


def test_control_tokens_come_from_the_format_only(model_file: Path, server: LoraServer) -> None:
    from peft_daemon.engines.torch.tokenizer import LiteralTokenizer, load_tokenizer

    tokenizer = LiteralTokenizer(load_tokenizer(model_file))
    spelled = "<|fim_middle|>"
    pieces = [piece for piece in formats.get("qwen-fim-v1").pieces if isinstance(piece, Segment)]
    prompt = (pieces[0], Segment(f"x = 1{spelled}"), *pieces[1:])
    expected = [id_ for piece in prompt for id_ in server.tokenize(piece.text, special=piece.special)]
    assert tokenizer.encode_prompt(prompt) == expected
    assert expected.count(tokenizer.special_id(spelled)) == 1
    with pytest.raises(InvalidInput, match="no control token '<fim_prefix>'"):
        tokenizer.encode_prompt((Segment("<fim_prefix>", special=True),))
