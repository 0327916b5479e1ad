"""Every method trains, saves, reloads bit for bit and generates on a tiny random model of every family."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.tiny_models import FAMILIES, tiny_base

if TYPE_CHECKING:
    import torch
    from torch import nn

    from peft_tuning.methods.base import Method, MethodOptions

pytestmark = pytest.mark.torch

METHOD_IDS = ("lora", "qlora-4bit", "qlora-8bit", "ia3", "prompt", "prefix", "full")


def batch() -> dict[str, torch.Tensor]:
    import torch

    tokens = torch.randint(0, 90, (2, 12), generator=torch.Generator().manual_seed(1))
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens}


def logits(model: nn.Module) -> torch.Tensor:
    import torch

    with torch.no_grad():
        return model.eval()(**batch()).logits


def train(method: Method, family: str, options: MethodOptions, *, steps: int = 6) -> tuple[nn.Module, list[float]]:
    """A tuned model, and its loss before every step and after the last; dropout is off, so that it must fall."""
    import torch

    base = tiny_base(family, method.precision_on("cpu"))
    model = method.apply(base, options, seed=7, calibration=[batch()] * 4).eval()
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    losses = []
    for _step in range(steps):
        loss = model(**batch()).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    with torch.no_grad():
        return model, [*losses, model(**batch()).loss.item()]


@pytest.mark.parametrize("method_id", METHOD_IDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_trains_saves_reloads_bit_for_bit_and_generates(family: str, method_id: str, tmp_path: Path) -> None:
    import torch

    from peft_tuning import methods
    from peft_tuning.methods.base import MethodOptions

    method = methods.get(method_id)
    model, losses = train(method, family, MethodOptions())
    assert losses[-1] < losses[0]
    method.save(model, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}

    loaded = method.load(tiny_base(family, method.precision_on("cpu")), tmp_path)
    untrained = tiny_base(family, method.precision_on("cpu")).model
    assert torch.equal(logits(loaded), logits(model))
    assert not torch.equal(logits(loaded), logits(untrained))

    prompt = {name: tensor for name, tensor in batch().items() if name != "labels"}
    texts = [each.generate(**prompt, max_new_tokens=4, do_sample=False) for each in (model, loaded)]
    assert torch.equal(*texts)
    assert texts[0].shape[1] > (1 if family == "t5" else prompt["input_ids"].shape[1])


@pytest.mark.parametrize("method_id", METHOD_IDS)
def test_the_seed_alone_decides_how_it_begins(method_id: str) -> None:
    import torch

    from peft_tuning import methods
    from peft_tuning.methods.base import MethodOptions

    method = methods.get(method_id)

    def trainable(seed: int) -> list[torch.Tensor]:
        torch.rand(1)  # a different state of the global generator each time
        model = method.apply(tiny_base("qwen2", method.precision_on("cpu")), MethodOptions(), seed)
        return [weight for weight in model.parameters() if weight.requires_grad]

    assert all(torch.equal(a, b) for a, b in zip(trainable(3), trainable(3), strict=True))
    if method_id not in {"ia3", "prompt", "full"}:  # those draw nothing
        assert not all(torch.equal(a, b) for a, b in zip(trainable(3), trainable(4), strict=True))


def test_applying_a_method_leaves_the_global_generator_alone() -> None:
    import torch

    from peft_tuning import methods
    from peft_tuning.methods.base import MethodOptions

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    methods.get("lora").apply(tiny_base("qwen2"), MethodOptions(init="pissa"), seed=1)
    assert torch.equal(torch.rand(1), expected)


def test_prompt_tuning_begins_as_the_text_over_and_over() -> None:
    import torch

    from peft_tuning import methods
    from peft_tuning.methods.base import MethodOptions

    base = tiny_base("qwen2")
    words = base.model.get_input_embeddings().weight.detach().clone()
    model = methods.get("prompt").apply(base, MethodOptions(virtual_tokens=5, init_text="ab"), seed=1)
    begun = model.prompt_encoder["default"].embedding.weight
    assert torch.equal(begun, words[[ord(letter) - 32 for letter in "ababa"]])


def test_evaluating_does_not_change_what_a_quantized_model_computes() -> None:
    import torch

    from peft_tuning import methods
    from peft_tuning.methods.base import MethodOptions

    method = methods.get("qlora-4bit")
    model = method.apply(tiny_base("qwen2", "nf4"), MethodOptions(dropout=0.0), seed=1)
    before = model.train()(**batch()).logits
    logits(model)
    assert torch.equal(model.train()(**batch()).logits, before)
