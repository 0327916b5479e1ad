"""Every family in transformers' layout is served as PEFT computes it; an encoder reads a prompt once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from peft_core.api_types import FinishReason
from peft_core.errors import InvalidInput
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.engines.base import GenerationRequest, Segment
from support.collected_answer import Answer
from support.tiny_folder import FILL_FORMATS, write_folder

pytestmark = pytest.mark.torch

FAMILIES = tuple(FILL_FORMATS)
KINDS = ("lora", "dora", "ia3", "prompt", "prefix")
WITH_VIRTUAL_TOKENS = ("prompt", "prefix")
PROMPT = (Segment("def re(x): ret"),)
CONTEXT = 64


@dataclass
class Served:
    """A model in memory, and its adapters, checked and stored as those of a user are."""

    base: Any
    generator: Any
    leases: dict[str, AdapterLease]
    reference: Callable[[str], Any]
    """Loads the model once more, with an adapter as PEFT applies it."""

    @property
    def adapter(self) -> AdapterLease:
        """The LoRA."""
        return self.leases["lora"]

    def ask(self, adapter: AdapterLease | None = None, **fields: Any) -> Answer:
        cancelled = fields.pop("cancelled", lambda: False)
        request = GenerationRequest(**{"prompt": PROMPT, "max_tokens": 3, "logprobs": 1, "adapter": adapter} | fields)
        return Answer.of(self.generator.generate(request, cancelled))


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Served]:
    """Makes each family once."""
    import torch

    from peft_daemon.adapters.registry import AdapterRegistry
    from peft_daemon.adapters.validation import BaseModel
    from peft_daemon.engines.torch.adapters import AdapterCache
    from peft_daemon.engines.torch.base_model import Precision, load_hub_folder
    from peft_daemon.engines.torch.encoder_decoder import text_generator
    from peft_tuning import methods
    from support.tiny_served import OPTIONS

    made: dict[str, Served] = {}

    def served(family: str) -> Served:
        if family in made:
            return made[family]
        top = tmp_path_factory.mktemp(family)
        folder = write_folder(family, top / "model")
        base, registry = load_hub_folder(folder, Precision.FLOAT32), AdapterRegistry(top / "registry")
        draw = torch.Generator().manual_seed(1)
        leases: dict[str, AdapterLease] = {}
        for kind in KINDS:
            if family == "t5" and kind in WITH_VIRTUAL_TOKENS:
                continue
            method, options = methods.get(OPTIONS[kind][0]), OPTIONS[kind][1]
            tuned = method.apply(load_hub_folder(folder, Precision.FLOAT32), options, seed=1)
            with torch.no_grad():
                for weight in tuned.parameters():
                    if weight.requires_grad:
                        weight.add_(torch.randn(weight.shape, generator=draw) * 0.3)
            (top / kind).mkdir()
            method.save(tuned, top / kind)
            manifest = registry.import_(top / kind, name=kind, base=BaseModel(family, base.sha256, folder))
            leases[kind] = registry.lease(manifest, engine="torch")

        def reference(kind: str) -> Any:
            fresh = load_hub_folder(folder, Precision.FLOAT32)
            return methods.get(OPTIONS[kind][0]).load(fresh, top / kind) if kind else fresh.model

        generator = text_generator(base, AdapterCache(base, 8), context_tokens=CONTEXT, step_tokens=5)
        made[family] = Served(base, generator, leases, reference)
        return made[family]

    return served


def expected(served: Served, kind: str) -> list[float]:
    """Log-probabilities of three greedy tokens, each computed anew without a cache."""
    import torch

    from peft_daemon.engines.torch.tokenizer import LiteralTokenizer, encoder_frame

    model, found = served.reference(kind), []
    tokens = LiteralTokenizer(served.base.tokenizer).encode_prompt(PROMPT)
    written = [served.base.decoder_start] if served.base.family.encoder_decoder else []
    with torch.no_grad():
        for _ in range(3):
            if written:
                first, last = encoder_frame(served.base.tokenizer)
                ids = {
                    "input_ids": torch.tensor([[*first, *tokens, *last]]),
                    "decoder_input_ids": torch.tensor([written]),
                }
            else:
                row = torch.tensor([tokens])
                ids = {"input_ids": row, "attention_mask": torch.ones_like(row)}
            logprobs = model(**ids).logits[0, -1].log_softmax(-1)
            (written or tokens).append(int(logprobs.argmax()))
            found.append(logprobs.max().item())
    return found


@pytest.mark.parametrize("kind", ["", *KINDS], ids=["base", *KINDS])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_computes_what_peft_computes(make: Callable[[str], Served], family: str, kind: str) -> None:
    served = make(family)
    if kind and kind not in served.leases:
        return  # refused: see below
    answer, wanted = served.ask(served.leases.get(kind)), expected(served, kind)
    # Half a character at the end of an answer is not told.
    assert answer.logprobs == pytest.approx(wanted[: len(answer.logprobs)], abs=1e-4)


@pytest.mark.parametrize("kind", WITH_VIRTUAL_TOKENS)
def test_virtual_tokens_are_refused_where_there_is_an_encoder(kind: str, tmp_path: Path) -> None:
    from peft_daemon.adapters.registry import AdapterRegistry
    from peft_daemon.adapters.validation import BaseModel
    from peft_daemon.engines.torch.base_model import Precision, load_hub_folder
    from peft_tuning import methods
    from support.tiny_served import OPTIONS

    base = load_hub_folder(write_folder("t5", tmp_path / "model"), Precision.FLOAT32)
    sha256, method = base.sha256, methods.get(kind)
    (tmp_path / "adapter").mkdir()
    method.save(method.apply(base, OPTIONS[kind][1], seed=1), tmp_path / "adapter")
    with pytest.raises(InvalidInput, match="not served on an encoder-decoder model"):
        AdapterRegistry(tmp_path / "registry").import_(
            tmp_path / "adapter", name="mine", base=BaseModel("t5", sha256, tmp_path / "model")
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_scale_zero_is_the_base(make: Callable[[str], Served], family: str) -> None:
    served = make(family)
    base = served.ask()
    served.ask(served.adapter)
    nothing = served.ask(AdapterLease(family, served.adapter.path, 0.0))
    assert (nothing.text, nothing.logprobs) == (base.text, base.logprobs)
    assert served.ask(served.adapter).logprobs != base.logprobs


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_that_holds_a_control_token_does_not_steer_it(make: Callable[[str], Served], family: str) -> None:
    from support.tiny_folder import CONTROL

    tokenizer = make(family).generator.tokenizer
    ids = {tokenizer.special_id(token) for token in CONTROL[family]}
    assert len(ids) == len(CONTROL[family])
    assert not ids & set(tokenizer.encode_text("".join(CONTROL[family])))


def test_an_encoder_reads_a_prompt_once(make: Callable[[str], Served]) -> None:
    served = make("t5")
    other = served.ask(prompt=(Segment("x"),)).last.timings
    first, again = served.ask().last.timings, served.ask().last.timings
    assert (first.prompt_evaluated, first.prompt_reused) == (first.prompt_tokens, 0)
    assert (again.prompt_evaluated, again.prompt_reused) == (0, first.prompt_tokens)
    # Its own beginning and end.
    assert other.prompt_tokens == 3
    tuned = served.ask(served.adapter).last.timings
    assert tuned.prompt_reused == 0


def test_an_encoders_prompt_may_fill_the_context_and_no_more(make: Callable[[str], Served]) -> None:
    served = make("t5")
    assert served.ask(prompt=(Segment("x" * (CONTEXT - 2)),)).last.reason is FinishReason.LENGTH
    with pytest.raises(InvalidInput, match=f"it has {CONTEXT + 1} tokens, the context {CONTEXT}"):
        served.ask(prompt=(Segment("x" * (CONTEXT - 1)),))


def test_a_cancelled_request_ends_before_its_prompt_is_read(make: Callable[[str], Served]) -> None:
    served = make("t5")
    cancelled = served.ask(prompt=(Segment("abc"),), cancelled=lambda: True).last
    assert (cancelled.reason, cancelled.timings.prompt_evaluated) == (FinishReason.CANCELLED, 0)


@pytest.fixture
def sentinels(make: Callable[[str], Served], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Answer]:
    """Answers as a model does that writes these texts, one token each."""
    from peft_daemon.engines.torch.generation import Sampler

    served = make("t5")
    vocabulary = served.base.tokenizer.get_vocab()

    def answer(text: str) -> Answer:
        tokens = iter([vocabulary[each] for each in text.split()])
        monkeypatch.setattr(Sampler, "pick", lambda self, logits: next(tokens))
        return served.ask(max_tokens=8, logprobs=0)

    return answer


@pytest.mark.parametrize(
    ("written", "text", "reason"),
    [
        ("<extra_id_0> a b <extra_id_1> c d", "ab", FinishReason.STOP),
        ("a b </s>", "ab", FinishReason.STOP),
        ("<extra_id_0> a b c d e f g", "abcdefg", FinishReason.LENGTH),
        ("a <extra_id_0> b", "a", FinishReason.STOP),
    ],
)
def test_the_sentinel_of_a_hole_is_no_text_and_the_next_one_ends_it(
    sentinels: Callable[[str], Answer], written: str, text: str, reason: FinishReason
) -> None:
    answer = sentinels(written)
    assert (answer.text, answer.last.reason) == (text, reason)
