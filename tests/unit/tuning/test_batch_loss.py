"""The loss is that of a model which sees each example alone, whatever the family, the method and the batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from peft_core.errors import InvalidInput
from peft_daemon.engines.torch import families
from peft_tuning import methods
from peft_tuning.batch import BatchLayout, Collator, chunked_cross_entropy, output_layer, response_loss, target_states
from peft_tuning.encode import EncodedExample
from peft_tuning.methods.base import MethodOptions
from support import tiny_run

pytestmark = pytest.mark.torch

TOLERANCE = 1e-5
SYSTEM = tuple(range(30, 41))
"""What the prompts of a chat format begin with."""
EXAMPLES = (
    EncodedExample((*SYSTEM, 1, 2, 3), (4, 5, 6, 256)),
    EncodedExample((*SYSTEM, 9), (7, 256)),
    EncodedExample((*SYSTEM, 8, 8, 1, 5, 77), (11, 12, 13, 14, 15, 256)),
    EncodedExample(SYSTEM, (90, 256)),
    EncodedExample((*SYSTEM, 50, 51, 52), (53, 256), learned=(1, 5, 12)),
    EncodedExample((*SYSTEM, 50, 51, 54), (53, 256), learned=(11, 13)),
)


def supported(method: str, family: str) -> bool:
    try:
        methods.get(method).check(families.family_of(family), MethodOptions())
    except InvalidInput:
        return False
    return True


PAIRS = [
    (method, family)
    for method in ("lora", "ia3", "prompt", "prefix", "full")
    for family in tiny_run.FAMILIES
    if supported(method, family)
]


def trainable(method: str, family: str) -> nn.Module:
    model = methods.get(method).apply(tiny_run.base(family), MethodOptions(), 1)
    with torch.no_grad():  # a fresh LoRA adds nothing; here it has to matter
        for parameter in model.parameters():
            if parameter.requires_grad and method != "full":
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return model.eval()


def alone(model: nn.Module, example: EncodedExample, *, encoder_decoder: bool) -> Tensor:
    """The loss of one example, with all its logits."""
    prompt, response = torch.tensor([example.prompt]), torch.tensor([example.response])
    if encoder_decoder:
        start = torch.cat((torch.tensor([[256]]), response[:, :-1]), dim=1)
        mask = torch.ones_like(prompt)
        logits = model(input_ids=prompt, attention_mask=mask, decoder_input_ids=start, use_cache=False).logits
    else:
        whole = torch.cat((prompt, response), dim=1)
        logits = model(input_ids=whole, attention_mask=torch.ones_like(whole), use_cache=False).logits
        learned = torch.tensor(example.learned, dtype=torch.long)
        virtual = logits.shape[1] - whole.shape[1]  # virtual tokens stand before
        shown = functional.cross_entropy(logits[0, virtual + learned - 1], whole[0, learned], reduction="sum")
        logits = logits[:, -len(example.response) - 1 : -1]
        answer = functional.cross_entropy(logits[0], response[0], reduction="sum")
        return shown + answer
    return functional.cross_entropy(logits[0, -response.shape[1] :], response[0], reduction="sum")


def layouts(method: str, family: str) -> list[BatchLayout]:
    if family == "t5":
        return [BatchLayout.ENCODER_DECODER]
    return [BatchLayout.PADDED] if method in ("prompt", "prefix") else [BatchLayout.PACKED, BatchLayout.PADDED]


@pytest.mark.parametrize(("method", "family"), PAIRS)
def test_batches_have_the_loss_and_gradient_of_their_examples(method: str, family: str) -> None:
    model = trainable(method, family)
    expected = sum((alone(model, each, encoder_decoder=family == "t5") for each in EXAMPLES), torch.zeros(()))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(expected, trained)
    for layout in layouts(method, family):
        for batch_tokens in (1, 64, 4096):
            model.zero_grad()
            collator = Collator(model, layout, batch_tokens, pad=256, decoder_start=256)
            batches = collator.split(EXAMPLES)
            losses = [response_loss(model, collator.tensors(batch)) for batch in batches]
            total = torch.stack(losses).sum()
            assert total.item() == pytest.approx(expected.item(), rel=TOLERANCE)
            total.backward()
            for parameter, gradient in zip(trained, gradients, strict=True):
                found = torch.zeros_like(gradient) if parameter.grad is None else parameter.grad
                torch.testing.assert_close(found, gradient, rtol=1e-3, atol=TOLERANCE * max(1, gradient.abs().max()))


@pytest.mark.parametrize(("method", "family"), [("lora", "qwen2"), ("prompt", "qwen2"), ("lora", "t5")])
def test_the_loss_of_weighted_examples_is_their_weighted_mean(method: str, family: str) -> None:
    model = trainable(method, family)
    weights = (1.0, 2.0, 0.5, 1.5, 2.0, 1.0)
    examples = [replace(each, weight=weight) for each, weight in zip(EXAMPLES, weights, strict=True)]
    encoder_decoder = family == "t5"
    by_hand = sum(
        (
            weight * alone(model, each, encoder_decoder=encoder_decoder)
            for each, weight in zip(EXAMPLES, weights, strict=True)
        ),
        torch.zeros(()),
    )
    counts = [len(each.response) + len(each.learned) for each in EXAMPLES]
    mean = by_hand / sum(weight * count for weight, count in zip(weights, counts, strict=True))
    assert sum(each.loss_weight for each in examples) == pytest.approx((by_hand / mean).item())
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(mean, trained)
    for layout in layouts(method, family):
        model.zero_grad()
        collator = Collator(model, layout, 64, pad=256, decoder_start=256)
        losses = [response_loss(model, collator.tensors(batch)) for batch in collator.split(examples)]
        loss = torch.stack(losses).sum() / sum(each.loss_weight for each in examples)
        assert loss.item() == pytest.approx(mean.item(), rel=TOLERANCE)
        loss.backward()
        for parameter, gradient in zip(trained, gradients, strict=True):
            found = torch.zeros_like(gradient) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(found, gradient, rtol=1e-3, atol=TOLERANCE * max(1, gradient.abs().max()))
        with torch.no_grad():
            again = [response_loss(model, collator.tensors(batch)) for batch in collator.split(examples)]
        assert torch.stack(again).sum().item() == pytest.approx(by_hand.item(), rel=TOLERANCE)


def test_no_more_than_a_chunk_of_answer_positions_is_projected_at_once() -> None:
    model = trainable("lora", "qwen2")
    collator = Collator(model, BatchLayout.PACKED, 4096, pad=256, decoder_start=256)
    seen: list[int] = []
    output_layer(model).register_forward_hook(lambda _head, inputs, _out: seen.append(inputs[0].numel() // 32))
    (batch,) = collator.split(EXAMPLES)
    response_loss(model, collator.tensors(batch)).backward()
    assert sum(seen) == sum(each.loss_tokens for each in EXAMPLES)


def test_chunks_do_not_change_the_sum_or_the_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(8, 50)
    states = torch.randn(23, 8, generator=generator, requires_grad=True)
    targets = torch.randint(0, 50, (23,), generator=generator)
    wanted = functional.cross_entropy(head(states), targets, reduction="sum")
    expected = torch.autograd.grad(3 * wanted, (states, head.weight, head.bias))
    for chunk in (1, 7, 23, 100):
        loss = chunked_cross_entropy(states, targets, head, chunk=chunk)
        torch.testing.assert_close(loss, wanted)
        torch.testing.assert_close(torch.autograd.grad(3 * loss, (states, head.weight, head.bias)), expected)
        with torch.no_grad():
            torch.testing.assert_close(chunked_cross_entropy(states, targets, head, chunk=chunk), wanted)


def test_lora_is_computed_in_bfloat16_on_such_a_base_and_learns_the_same_in_float32() -> None:
    model = trainable("lora", "qwen2").to(torch.bfloat16)
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    for each in trained.values():
        each.data = each.data.float()
    layer = next(module for name, module in model.named_modules() if name.endswith("q_proj.lora_A.default"))
    types: list[torch.dtype] = []
    layer.register_forward_hook(lambda _layer, inputs, output: types.extend((inputs[0].dtype, output.dtype)))
    batch = Collator(model, BatchLayout.PACKED, 1000, pad=0, decoder_start=0)
    (tensors,) = [batch.tensors(each) for each in batch.split(EXAMPLES)]
    found = []
    for loss in (
        response_loss(model, tensors),
        chunked_cross_entropy(*target_states(model, tensors.inputs, tensors.targets)),
    ):
        loss.backward()
        assert {each.grad.dtype for each in trained.values() if each.grad is not None} == {torch.float32}
        found.append(
            (loss.item(), torch.cat([each.grad.flatten() for each in trained.values() if each.grad is not None]))
        )
        model.zero_grad()
    assert types == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]
    (here, ours), (there, peft) = found
    assert here == pytest.approx(there, rel=1e-2)
    assert functional.cosine_similarity(ours, peft, dim=0) > 0.99
