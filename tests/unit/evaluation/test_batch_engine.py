"""Many answers at once in torch: each is what it would be alone, whatever else is under way beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from peft_core.api_types import FinishReason, SamplingParams
from peft_core.errors import EngineFailed, InvalidInput
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.engines.base import Engine, GenerationChunk, GenerationRequest, Segment

pytestmark = pytest.mark.torch

KINDS = ("lora", "ia3", "prompt", "prefix")
CONTEXT = 64
PROMPTS = (
    "def return(x): return x",
    "def return(x): x",
    "def return(x): return x",
    "e",
    "def return(e): return x x x x x x x x",
    "fure",
    "def return(x",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("batched")


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def base(request: pytest.FixtureRequest, folder: Path) -> Any:
    from support.tiny_served import loaded, tiny_gguf

    return loaded(tiny_gguf(folder, request.param))


@pytest.fixture(scope="module")
def other(base: Any, folder: Path) -> Any:
    """The engine that has one request at a time, with the same weights in other memory."""
    from peft_daemon.engines.torch.adapters import AdapterCache
    from peft_daemon.engines.torch.generation import TextGenerator
    from support.tiny_served import loaded, tiny_gguf

    own = loaded(tiny_gguf(folder, base.family.id))
    return TextGenerator(own, AdapterCache(own, 8), context_tokens=CONTEXT, step_tokens=100)


@pytest.fixture(scope="module")
def leases(base: Any, folder: Path) -> dict[str, AdapterLease | None]:
    from support.tiny_served import tiny_gguf, write_adapter

    family = base.family.id
    file = tiny_gguf(folder, family)
    found: dict[str, AdapterLease | None] = {"none": None}
    for name in KINDS:
        path = write_adapter(file, name, folder / family / name)
        found[name] = AdapterLease(f"{family}-{name}", path, 1.0)
    return found


@pytest.fixture
async def engine(base: Any) -> AsyncIterator[Any]:
    async for each in running(base, rows=5):
        yield each


async def running(base: Any, *, rows: int) -> AsyncIterator[Any]:
    from peft_evaluation.batch_engine.engine import BatchedEngine

    engine = BatchedEngine(lambda: base, model_id="tiny", context_tokens=CONTEXT, rows=rows)
    await engine.start()
    await engine.ready()
    yield engine
    await engine.stop()


def requests(
    adapters: Sequence[AdapterLease | None], temperature: float = 0.0, top_p: float = 1.0, **fields: Any
) -> list[GenerationRequest]:
    return [
        GenerationRequest(
            (Segment(text),),
            max_tokens=3 + number % 6,
            adapter=adapter,
            sampling=SamplingParams(temperature, top_p, number),
            **fields,
        )
        for number, (text, adapter) in enumerate((text, adapter) for adapter in adapters for text in PROMPTS)
    ]


async def ask(engine: Engine, request: GenerationRequest) -> tuple[str, GenerationChunk]:
    """Return the whole text and the last chunk."""
    chunks = [chunk async for chunk in engine.generate(request)]
    return "".join(chunk.text for chunk in chunks), chunks[-1]


def alone(other: Any, request: GenerationRequest) -> tuple[str, FinishReason | None]:
    other._held = None  # cached and fresh states differ in roundings
    chunks = list(other.generate(request, lambda: False))
    return "".join(chunk.text for chunk in chunks), chunks[-1].reason


@pytest.mark.parametrize(
    "fields",
    [{}, {"temperature": 1.5, "top_p": 0.9}, {"stop": ("x", "tu")}, {"begins_with": "retur"}],
    ids=["greedy", "sampled", "stopped", "begun"],
)
async def test_every_answer_is_the_one_it_would_be_alone(
    base: Any, other: Any, leases: dict[str, AdapterLease | None], fields: Any
) -> None:
    asked = requests([leases["none"], leases["lora"], leases["none"]], **fields)
    async for engine in running(base, rows=5):
        found = await asyncio.gather(*(ask(engine, each) for each in asked))
    assert [(text, last.reason) for text, last in found] == [alone(other, each) for each in asked]


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_adapter_answers_as_it_would_alone(
    other: Any, engine: Any, leases: dict[str, AdapterLease | None], kind: str
) -> None:
    asked = requests([leases[kind]])
    found = [text for text, _ in await asyncio.gather(*(ask(engine, each) for each in asked))]
    assert found == [alone(other, each)[0] for each in asked]
    assert found != [alone(other, each)[0] for each in requests([None])], (
        "an adapter that changes nothing shows nothing"
    )


async def test_what_prompts_have_in_common_is_read_once(engine: Any) -> None:
    first = await asyncio.gather(*(ask(engine, each) for each in requests([None])[:3]))
    evaluated = [last.timings.prompt_evaluated for _, last in first]
    tokens = [last.timings.prompt_tokens for _, last in first]
    assert sum(evaluated) < sum(tokens) - 15
    assert evaluated[2] == 0, "the same prompt again"
    _, later = await ask(engine, requests([None])[0])
    assert later.timings.prompt_reused > 5, "what was read for others is still there"


async def test_a_call_that_is_given_up_makes_room_for_the_next(base: Any) -> None:
    async for engine in running(base, rows=1):
        stream = engine.generate(GenerationRequest((Segment("e"),), max_tokens=60))
        await anext(stream)
        await stream.aclose()
        await asyncio.wait_for(ask(engine, requests([None])[0]), 30)
        await engine.idle()


async def test_a_prompt_that_does_not_fit_and_an_adapter_that_is_gone_fail_alone(
    other: Any, engine: Any, tmp_path: Path
) -> None:
    good, *_ = requests([None])
    gone = GenerationRequest((Segment("e"),), max_tokens=2, adapter=AdapterLease("gone", tmp_path))
    long = GenerationRequest((Segment("e" * CONTEXT),), max_tokens=2)
    found = await asyncio.gather(*(ask(engine, each) for each in (good, gone, long, good)), return_exceptions=True)
    assert [type(each) for each in found] == [tuple, InvalidInput, InvalidInput, tuple]
    assert found[3] is not None and found[3][0] == alone(other, good)[0]  # type: ignore[index]


async def test_a_failure_while_computing_is_told_and_the_next_request_is_answered(
    other: Any, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft_evaluation.batch_engine.kv_states import KvRows

    def broken(*_arguments: Any) -> Any:
        raise MemoryError("no memory left")

    with monkeypatch.context() as changed:
        changed.setattr(KvRows, "step", broken)
        with pytest.raises(EngineFailed, match="no memory left"):
            await ask(engine, GenerationRequest((Segment("def"),), max_tokens=9))
    assert (await ask(engine, requests([None])[0]))[0] == alone(other, requests([None])[0])[0]


async def test_the_beams_are_those_of_transformers(base: Any) -> None:
    async for engine in running(base, rows=9):
        found = await asyncio.gather(
            *(
                engine.search((Segment(text),), width=4, max_tokens=7, adapter=None, stop=())
                for text in [*PROMPTS, *PROMPTS]
            )
        )
    for text, (beams, _timings) in zip([*PROMPTS, *PROMPTS], found, strict=True):
        expected = _searched(base, text)
        assert [round(beam.score, 4) for beam in beams] == [round(score, 4) for _, score in expected]
        assert [beam.text for beam in beams] == [words for words, _ in expected]


def _searched(base: Any, text: str) -> list[tuple[str, float]]:
    import torch

    from peft_daemon.engines.torch.tokenizer import ByteVocabulary, LiteralTokenizer

    vocabulary = ByteVocabulary(base.tokenizer)
    ends = sorted(vocabulary.ends)
    tokens = torch.tensor([LiteralTokenizer(base.tokenizer).encode_text(text)])
    found = base.model.generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        num_beams=4,
        num_return_sequences=4,
        do_sample=False,
        max_new_tokens=7,
        eos_token_id=ends,
        pad_token_id=ends[0],
        return_dict_in_generate=True,
        output_scores=True,
    )
    rows = [[token for token in row[tokens.shape[1] :].tolist() if token not in ends] for row in found.sequences]
    texts = [b"".join(vocabulary.text(token) for token in row).decode(errors="replace") for row in rows]
    return list(zip(texts, found.sequences_scores.tolist(), strict=True))


async def test_a_beam_ends_before_a_stop_string(engine: Any) -> None:
    free, _ = await engine.search((Segment("def return(x"),), width=4, max_tokens=6, adapter=None, stop=())
    stop = next(beam.text[1] for beam in free if len(beam.text) > 2 and beam.text[1].isprintable())
    found, _ = await engine.search((Segment("def return(x"),), width=4, max_tokens=6, adapter=None, stop=(stop,))
    assert len(found) == 4
    assert not any(stop in beam.text for beam in found)
    assert not all(beam.truncated for beam in found)


async def test_stopping_does_not_wait_for_prompts_that_are_still_to_be_read(
    base: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from peft_evaluation.batch_engine import engine as module
    from peft_evaluation.batch_engine.kv_states import PromptReader
    from peft_evaluation.batch_engine.worker import BatchLimits

    monkeypatch.setattr(module, "batch_limits", lambda _device, rows: BatchLimits(rows=rows, positions=9999, reading=8))
    passes: list[int] = []
    reading, go_on = threading.Event(), threading.Event()
    forward = PromptReader._forward

    def slow(self: PromptReader, *arguments: Any) -> Any:
        found = forward(self, *arguments)
        passes.append(1)
        reading.set()
        go_on.wait(30)
        return found

    monkeypatch.setattr(PromptReader, "_forward", slow)
    async for engine in running(base, rows=9):
        asking = asyncio.gather(*(ask(engine, each) for each in requests([None])), return_exceptions=True)
        await asyncio.to_thread(reading.wait, 30)
        worker = engine._worker
        stopping = asyncio.create_task(engine.stop())
        await asyncio.to_thread(worker._stopping.wait, 30)
        go_on.set()
        await asyncio.wait_for(stopping, 30)
        found = await asyncio.wait_for(asking, 30)
    assert len(passes) == 1
    assert all(isinstance(each, EngineFailed) for each in found)


async def test_the_memory_of_a_card_is_added_to_that_of_this_process(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = engine.status().memory_bytes
    monkeypatch.setattr("peft_evaluation.batch_engine.engine.card_memory_bytes", lambda _device: 10**15)
    assert engine.status().memory_bytes >= 10**15 + before // 2
