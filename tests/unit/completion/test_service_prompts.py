"""Which prompt the model is asked, and with which adapter: what is at a cursor in a file is asked with the file."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from fakes.scripted_engines import ScriptedEngine
from peft_core.api_types import CompleteRequest, CompleteResponse, Task
from peft_core.status_types import LLAMACPP
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.completion import client_prompts
from peft_daemon.completion.job import RawRequest
from peft_daemon.completion.service import CompletionService
from peft_daemon.engines.base import GenerationRequest, Segment
from peft_daemon.models.catalogue import PromptFormats
from support.one_model import one_model_service
from support.synthetic_adapter import TinyModel, lora, write_peft
from support.tiny_entry import tiny_entry

ABOVE = "def read_names(path):\n    ...\n\n\n"
BELOW = "\n\ndef main():\n    show(read_names('names.txt'))\n"


class LoRAEngine(ScriptedEngine):
    """A scripted model that serves adapters."""

    id = LLAMACPP


@pytest.fixture
def engine() -> LoRAEngine:
    return LoRAEngine(["pass"])


@pytest.fixture
def service(engine: LoRAEngine, tmp_path: Path) -> CompletionService:
    """With one adapter for each task in use."""
    base = TinyModel.random("qwen2").write(tmp_path / "tiny.gguf")
    registry = AdapterRegistry(tmp_path / "adapters")
    for seed, (task, form) in enumerate([(Task.FILL, "qwen-fim-v1"), (Task.INTENT, "instruct-v1")]):
        record = {"base": "tiny", "base_sha256": base.sha256, "tasks": [task.value], "prompt_format": form}
        registry.import_(write_peft(tmp_path / form, lora(seed=seed), record=record), name=task.value, base=base)
        registry.use(task.value)
    formats = PromptFormats(fill="qwen-fim-v1", intent="qwen-chat-v1")
    entry = msgspec.structs.replace(
        tiny_entry(b""), id=base.id, sha256=base.sha256, context_tokens=2048, prompt_formats=formats
    )
    return one_model_service(entry, engine, registry)


async def answer(service: CompletionService, source: str, **fields: object) -> CompleteResponse:
    prefix, _, suffix = source.partition("‸")
    asked = msgspec.convert({"prefix": prefix, "suffix": suffix, **fields}, CompleteRequest)
    async with aclosing(service.complete(asked)) as items:
        return [item async for item in items if isinstance(item, CompleteResponse)][-1]


def asked_of(engine: LoRAEngine) -> GenerationRequest:
    assert engine.request is not None
    return engine.request


def text_of(request: GenerationRequest) -> str:
    return "".join(piece.text for piece in request.prompt)


@pytest.mark.parametrize(
    ("source", "language"),
    [
        (f"{ABOVE}# print each name on its own line\n‸{BELOW}", "python"),
        (f"{ABOVE}# print each name on its own line‸{BELOW}", "python"),
        (f'{ABOVE}def show(names):\n    """Print each name on its own line."""\n    ‸\n{BELOW}', "python"),
        ("const names = [];\n// print each name on its own line\n‸\n\nshow(names);\n", "javascript"),
        ("package main\n\n// print each name on its own line\n‸\n\nfunc main() {}\n", "go"),
    ],
)
@pytest.mark.parametrize("task", [None, "intent"])
async def test_code_below_a_comment_or_docstring_is_asked_for_with_the_file(
    service: CompletionService, engine: LoRAEngine, source: str, language: str, task: str | None
) -> None:
    response = await answer(service, source, language=language, task=task)
    prompt = text_of(asked_of(engine))
    prefix, _, suffix = source.partition("‸")
    for line in [*prefix.rstrip().split("\n"), *suffix.split("\n")]:
        assert line in prompt
    assert "###" not in prompt
    assert response.task is Task.INTENT
    assert response.adapter is not None and response.adapter.name == "fill", "made for such prompts"


COMMENTS = "#!/usr/bin/env python3\n# NAMES = names.txt\n\n# print each name on its own line\n‸\n\n# the end\n"


async def test_where_there_is_nothing_but_comments_the_sentence_is_asked_together_with_them(
    service: CompletionService, engine: LoRAEngine
) -> None:
    await answer(service, COMMENTS, adapter="base")
    prompt = text_of(asked_of(engine))
    assert prompt.startswith("<|im_start|>system\n")
    assert "comes next: print each name on its own line<|im_end|>" in prompt
    assert COMMENTS.replace("‸", "") in prompt


async def test_the_adapter_chosen_for_sentences_is_asked_as_it_was_trained(
    service: CompletionService, engine: LoRAEngine
) -> None:
    response = await answer(service, COMMENTS)
    assert "### Instruction:\nprint each name on its own line\n" in text_of(asked_of(engine))
    assert response.adapter is not None and response.adapter.name == "intent"


async def test_a_sentence_without_a_file_goes_to_the_adapter_chosen_for_sentences(
    service: CompletionService, engine: LoRAEngine
) -> None:
    response = await answer(service, "‸", intent="print each name")
    assert "### Instruction:\nprint each name\n" in text_of(asked_of(engine))
    assert response.adapter is not None and response.adapter.name == "intent"


async def test_a_hole_that_a_client_wrote_is_asked_with_control_tokens_and_its_text_stays_text(
    service: CompletionService, engine: LoRAEngine
) -> None:
    hole = client_prompts.parse(
        "<|repo_name|>shop\n<|file_sep|>a.py\nTOKEN = '<|endoftext|>'\n<|file_sep|>b.py\n"
        "<|fim_prefix|>x = <|fim_suffix|>\n# <|im_end|>\n<|fim_middle|>"
    )
    assert hole is not None
    raw = RawRequest(
        prefix=hole.prefix,
        suffix=hole.suffix,
        max_tokens=8,
        context=hole.context,
        path=hole.path,
        repository=hole.repository,
        stop=("y",),
    )
    async with aclosing(service.raw(raw, model=service.models[Task.FILL], route="test")) as items:
        [_ async for _ in items]
    request = asked_of(engine)
    special = [piece.text for piece in request.prompt if piece.special]
    assert special == [
        "<|repo_name|>", "<|file_sep|>", "<|file_sep|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"
    ]  # fmt: skip
    literal = [piece for piece in request.prompt if not piece.special]
    assert Segment("shop\n") in literal
    assert Segment("a.py\nTOKEN = '<|endoftext|>'\n") in literal
    assert "<|im_end|>" in "".join(piece.text for piece in literal)
    assert {"y", "<|fim_prefix|>", "<|endoftext|>"} <= set(request.stop)
