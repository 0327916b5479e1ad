"""The decoding loop and its adapters on tiny models: what PEFT computes, and nothing of another request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from peft_core.api_types import FinishReason, SamplingParams
from peft_core.errors import InvalidInput, NotFound
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.engines.base import GenerationRequest, Segment
from support.collected_answer import Answer

if TYPE_CHECKING:
    from peft_daemon.engines.torch.generation import TextGenerator

pytestmark = pytest.mark.torch

PROMPT = (Segment("def return(x): return x"),)
KINDS = ("lora", "dora", "ia3", "prompt", "prefix")
STEP = 4


@dataclass
class Served:
    """A generator over a tiny base, and a folder per adapter."""

    generator: TextGenerator
    folders: dict[str, Path]

    def lease(self, name: str, scale: float = 1.0) -> AdapterLease:
        return AdapterLease(name, self.folders[name], scale)

    def ask(self, adapter: AdapterLease | None = None, max_tokens: int = 5, **fields: Any) -> Answer:
        cancelled: Callable[[], bool] = fields.pop("cancelled", lambda: False)
        fields = {"prompt": PROMPT, "logprobs": 1} | fields
        request = GenerationRequest(max_tokens=max_tokens, adapter=adapter, **fields)
        return Answer.of(self.generator.generate(request, cancelled))

    def forget(self) -> None:
        """Leave nothing in the cache: cached and fresh keys differ in roundings."""
        self.generator._held = None


def make(folder: Path, family: str, limit: int = 8) -> Served:
    from peft_daemon.engines.torch.adapters import AdapterCache
    from peft_daemon.engines.torch.generation import TextGenerator
    from support.tiny_served import loaded, tiny_gguf, write_adapter

    base = tiny_gguf(folder, family)
    in_memory = loaded(base)
    generator = TextGenerator(in_memory, AdapterCache(in_memory, limit), context_tokens=64, step_tokens=STEP)
    return Served(generator, {name: write_adapter(base, name, folder / family / name) for name in KINDS})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield make(tmp_path_factory.mktemp("served"), "qwen2")
    torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_computes_what_peft_computes(served: Served, kind: str) -> None:
    import torch

    from peft_tuning import methods
    from support.tiny_served import OPTIONS, loaded, tiny_gguf

    folder = served.folders[kind]
    reference = methods.get(OPTIONS[kind][0]).load(loaded(tiny_gguf(folder.parent, "qwen2")), folder)
    tokens = served.generator.tokenizer.encode_prompt(PROMPT)
    expected = []
    with torch.no_grad():
        for _ in range(3):
            row = torch.tensor([tokens])
            logprobs = reference(input_ids=row, attention_mask=torch.ones_like(row)).logits[0, -1].log_softmax(-1)
            tokens.append(int(logprobs.argmax()))
            expected.append(logprobs.max().item())
    answer = served.ask(served.lease(kind), max_tokens=3)
    # Half a character at the end of an answer is not told.
    assert answer.logprobs == pytest.approx(expected[: len(answer.logprobs)], abs=1e-5)
    assert answer.logprobs


def test_each_step_of_reading_is_told_so_that_slow_reading_is_not_taken_for_a_hang(served: Served) -> None:
    served.forget()
    request = GenerationRequest(prompt=PROMPT, max_tokens=1)
    silent = [chunk.timings for chunk in served.generator.generate(request, lambda: False) if chunk.silent]
    length = len(served.generator.tokenizer.encode_prompt(PROMPT))
    assert [each.prompt_evaluated for each in silent] == list(range(STEP, length, STEP))
    assert {each.prompt_tokens for each in silent} == {length}


@pytest.mark.parametrize("kind", KINDS)
def test_scale_zero_is_the_base_token_for_token(served: Served, kind: str) -> None:
    base = served.ask()
    served.ask(served.lease(kind))
    nothing = served.ask(served.lease(kind, 0.0))
    assert (nothing.text, nothing.logprobs) == (base.text, base.logprobs)
    assert served.ask(served.lease(kind)).logprobs != base.logprobs


def test_no_request_sees_the_adapter_of_another(served: Served) -> None:
    def alone(lease: AdapterLease | None) -> list[float]:
        served.forget()
        return served.ask(lease).logprobs

    leases = [None, *(served.lease(kind) for kind in KINDS), served.lease("lora", 0.5), served.lease("ia3", 0.5)]
    wanted = [alone(lease) for lease in leases]
    order = [1, 0, 4, 2, 5, 3, 6, 1, 7, 0, 5, 0, 4, 7, 3, 6, 2]
    assert len({tuple(logprobs) for logprobs in wanted}) == len(leases)
    assert [served.ask(leases[n]).logprobs for n in order] == [wanted[n] for n in order]


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_half_the_scale_lies_between_the_base_and_the_adapter(served: Served, kind: str) -> None:
    import torch

    def weight(scale: float) -> torch.Tensor:
        served.generator._shelf.activate(served.lease(kind, scale))
        layer = served.generator._model.get_submodule("model.layers.0.self_attn.k_proj")
        return layer(torch.eye(32)).detach()

    base, half, whole = weight(0.0), weight(0.5), weight(1.0)
    assert torch.allclose(half, (base + whole) / 2, atol=1e-6)
    assert not torch.allclose(base, whole, atol=1e-2)


@pytest.mark.parametrize("kind", ["dora", "prompt", "prefix"])
def test_what_has_no_meaning_in_parts_is_on_or_off(served: Served, kind: str) -> None:
    with pytest.raises(InvalidInput, match=r"cannot have the scale 0\.5") as caught:
        served.ask(served.lease(kind, 0.5))
    assert "scale 1" in caught.value.fix


def test_the_least_recently_used_adapter_leaves_memory_and_comes_back(tmp_path: Path) -> None:
    served = make(tmp_path, "llama", limit=2)
    shelf = served.generator._shelf
    first = served.ask(served.lease("lora")).logprobs
    for kind in ("ia3", "lora", "prompt"):
        served.ask(served.lease(kind))
    assert shelf.digests == ["lora", "prompt"]
    served.ask(served.lease("ia3"))
    assert served.ask(served.lease("lora")).logprobs == first


def test_an_adapter_that_cannot_be_loaded_leaves_the_base_alone(served: Served, tmp_path: Path) -> None:
    base = served.ask().logprobs
    served.ask(served.lease("lora"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="cannot read the adapter"):
        served.ask(AdapterLease("empty", tmp_path / "empty"))
    with pytest.raises(NotFound, match="removed meanwhile"):
        served.ask(AdapterLease("gone", tmp_path / "gone"))
    assert served.ask().logprobs == base


def test_a_request_that_was_given_up_before_its_turn_loads_no_adapter(served: Served, tmp_path: Path) -> None:
    given_up = served.ask(AdapterLease("gone", tmp_path / "gone"), cancelled=lambda: True)
    assert given_up.last.reason is FinishReason.CANCELLED


@pytest.mark.parametrize("kind", [None, "lora", "prompt", "prefix"])
def test_a_second_request_reads_only_the_last_token_again(served: Served, kind: str | None) -> None:
    lease = served.lease(kind) if kind else None
    served.forget()
    first = served.ask(lease)
    assert (first.last.timings.prompt_evaluated, first.last.timings.prompt_reused) == (13, 0)
    again = served.ask(lease)
    assert (again.last.timings.prompt_evaluated, again.last.timings.prompt_reused) == (1, 12)
    assert again.logprobs == pytest.approx(first.logprobs, abs=1e-5)


def test_a_prompt_can_be_read_ahead(served: Served) -> None:
    served.forget()
    ahead = served.ask(max_tokens=0)
    assert (ahead.text, ahead.last.reason) == ("", FinishReason.LENGTH)
    assert ahead.last.timings.prompt_evaluated == ahead.last.timings.prompt_tokens > STEP
    assert served.ask().last.timings.prompt_evaluated == 1


def test_a_longer_prompt_reads_what_is_new_and_another_scale_everything(served: Served) -> None:
    served.ask(served.lease("lora"))
    longer = (Segment(PROMPT[0].text + "= 1"),)
    timings = served.ask(served.lease("lora"), prompt=longer).last.timings
    assert timings.prompt_reused >= 12 and timings.prompt_evaluated == timings.prompt_tokens - timings.prompt_reused
    assert served.ask(served.lease("lora", 0.5), prompt=longer).last.timings.prompt_reused == 0


def test_cancelling_stops_between_two_steps_of_the_prompt_which_go_on_from_there(served: Served) -> None:
    served.forget()
    looks = iter([False, False, False, True])  # at its turn, and after each step
    answer = served.ask(cancelled=lambda: next(looks))
    assert (answer.last.reason, answer.last.timings.prompt_evaluated) == (FinishReason.CANCELLED, 2 * STEP)
    assert served.ask().last.timings.prompt_reused == 2 * STEP


def test_cancelling_stops_before_the_next_token(served: Served) -> None:
    served.ask(served.lease("lora"), max_tokens=1)
    # At its turn, before the prompt's last token, after the first token, after the second.
    looks = iter([False, False, False, True])
    answer = served.ask(served.lease("lora"), max_tokens=40, cancelled=lambda: next(looks))
    assert (answer.last.reason, answer.last.timings.decode_tokens) == (FinishReason.CANCELLED, 2)


def test_a_failure_in_a_step_leaves_no_half_filled_cache(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = served.ask(served.lease("ia3")).text
    model = served.generator._model

    def fail(*args: Any, **kwargs: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", fail)
        with pytest.raises(MemoryError):
            served.ask(served.lease("ia3"))
    again = served.ask(served.lease("ia3"))
    assert (again.text, again.last.timings.prompt_reused) == (wanted, 0)


def test_budgets_end_with_their_reason(served: Served) -> None:
    assert served.ask(served.lease("lora"), max_tokens=3).last.reason is FinishReason.LENGTH
    assert served.ask(time_budget_ms=0).last.reason is FinishReason.TIMEOUT
    # The context has 64 places, 3 of them for virtual tokens; the last token written needs none.
    full = served.ask(served.lease("prefix"), max_tokens=1000).last
    assert (full.reason, full.timings.decode_tokens) == (FinishReason.LENGTH, 64 - 3 - 13 + 1)


def test_a_prompt_that_does_not_fit_is_refused_with_the_fix(served: Served) -> None:
    with pytest.raises(InvalidInput, match="context_tokens"):
        served.ask(prompt=(Segment("x" * 65),))


def test_an_answer_begins_with_what_it_has_to(served: Served) -> None:
    for kind in (None, "lora", "prefix"):
        lease = served.lease(kind) if kind else None
        assert served.ask(lease, max_tokens=8, begins_with=" retrn").text.startswith(" retrn")


def test_a_seed_makes_sampling_repeatable(served: Served) -> None:
    def sample(seed: int, top_p: float = 1.0) -> str:
        return served.ask(sampling=SamplingParams(1.5, top_p, seed), max_tokens=8).text

    assert sample(7) == sample(7)
    assert len({sample(seed) for seed in range(4)}) > 1
    # Next to nothing of the probability is the most likely token alone.
    assert sample(1, top_p=1e-6) == served.ask(max_tokens=8).text
